"""Cards that are to take figures: this package's, other people's, and broken ones."""

import pytest
from support.borders import Refused, check, outcomes
from support.cards import make_report

from hf_pmgaft.hub.card_update import ExistingCard

REPORT = make_report({"food": (0.7, 0.4)})
HASH = REPORT.protocol_hash
OURS = "---\ntags:\n- hf-pmgaft\nmodel-index:\n- name: mine\n  results: []\n---\n"
NO_INDEX = "---\ntags:\n- hf-pmgaft\n---\n"

CARDS = {
    "one of this package": (OURS + "# mine\n\n## Results\n\nThis checkpoint was not evaluated.\n\n## Limits\n", 1),
    "without figures in its metadata": (NO_INDEX + "# mine\n\n## Limits\n", 1),
    "without sections": (NO_INDEX + "# mine\n", 1),
    "nothing but metadata": (NO_INDEX, 1),
    "lines that end as on Windows": (NO_INDEX.replace("\n", "\r\n") + "# mine\r\n", 1),
    "other protocols' figures": (OURS + "<!-- figures of a -->\nx\n<!-- end of figures of a -->\n## Limits\n", 2),
    "the same protocol's figures": (
        OURS + f"<!-- figures of {HASH} -->\nx\n<!-- end of figures of {HASH} -->\n## Limits\n",
        1,
    ),
    "figures without marks": (OURS + f"Accuracy in %, protocol `{HASH}`.\n", Refused("without the marks around them")),
    "another package's": ("---\ntags:\n- clip\n---\n# other\n", Refused("is none that this package wrote")),
    "no tags": ("---\nlicense: mit\n---\n# other\n", Refused("its tags have no hf-pmgaft")),
    "no metadata": ("# other\n", Refused("its tags have no hf-pmgaft")),
    "nothing": ("", Refused("its tags have no hf-pmgaft")),
    "broken YAML": ("---\ntags: [hf-pmgaft\n---\n# mine\n", Refused("cannot be read")),
    "a list in place of metadata": ("---\n- hf-pmgaft\n---\n# mine\n", Refused("cannot be read")),
    "metadata that do not end": ("---\ntags:\n- hf-pmgaft\n# mine\n", Refused("its tags have no hf-pmgaft")),
    "a tag as a text": ("---\ntags: clip\n---\n# mine\n", Refused("its tags have no hf-pmgaft")),
}


@outcomes(CARDS)
def test_cards(given, outcome, tmp_path):
    (tmp_path / "README.md").write_text(given, encoding="utf-8", newline="")

    def blocks():
        return ExistingCard.read(str(tmp_path)).with_figures(REPORT).count("<!-- figures of")

    check(blocks, outcome)


@pytest.mark.parametrize("model", [{}, {"fingerprint": None}, {"fingerprint": "abc"}])
def test_a_report_without_the_weights_of_the_model_is_refused(model, tmp_path):
    from support.tiny import make_model

    make_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another model's card"):
        ExistingCard(str(tmp_path), OURS).check_weights(model)
