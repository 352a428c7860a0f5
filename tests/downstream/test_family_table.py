"""docs/vision_language_families.md is what the tests see of each family; `--write` writes it."""

import pytest
from support.family_table import HOW, SEEN, how_row, resumes, seen_row, stored_rows, write_page
from support.vlm_families import MAKERS, family_or_skip

from hf_pmgaft import VisionLanguageModel

WORDS = (SEEN.index("family"), SEEN.index("tower swap"), SEEN.index("resume"))


@pytest.fixture(scope="module")
def rows(request):
    """The rows of both tables, which `--write` puts on the page."""
    seen, how = {}, {}
    yield seen, how
    if request.config.getoption("write"):
        write_page(seen, how)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_familys_row_is_what_is_seen(kind, rows, request, tmp_path):
    seen, how = rows
    vlm = VisionLanguageModel(*family_or_skip(kind))
    seen[kind] = seen_row(kind, vlm, resumes(vlm, tmp_path / "texts.jsonl"))
    how[kind] = how_row(kind, vlm)

    apart, untargeted, targeted = seen[kind][2:5]
    assert float(apart.split()[0]) < 2 and float(untargeted) > 0 > float(targeted)
    if not request.config.getoption("write"):
        stored = stored_rows()[kind]
        assert [seen[kind][place] for place in WORDS] == [stored[place] for place in WORDS]


def test_the_table_has_every_family():
    assert list(stored_rows()) == list(MAKERS)
    assert {len(row) for row in stored_rows().values()} == {len(SEEN)} and len(HOW) <= 7
