"""Figures: titles and keys, there and back."""

import pytest

from hf_pmgaft.evaluation.figure import Figure

TITLES = {
    "accuracy": Figure(),
    "I2T R@1": Figure("recall", "I2T", 1),
    "T2I R@10": Figure("recall", "T2I", 10),
    "target@5": Figure("target kept out", None, 5),
}


@pytest.mark.parametrize("title", TITLES)
def test_a_title_is_read_as_it_was_written(title):
    figure = Figure.parse(title)

    assert figure == TITLES[title] and figure.title == str(figure) == title
    assert Figure.of(title) == Figure.of(figure) == figure


def test_keys_hold_nothing_that_trackers_or_file_names_refuse():
    assert [figure.key for figure in TITLES.values()] == ["accuracy", "I2T_R1", "T2I_R10", "target5"]
    assert [figure.kind_key for figure in TITLES.values()] == ["accuracy", "recall", "recall", "target_kept_out"]
    assert [figure.is_accuracy for figure in TITLES.values()] == [True, False, False, False]


@pytest.mark.parametrize("title", ["", "recall", "I2T R@", "T2T R@1", "target@five", "accuracy "])
def test_other_texts_are_refused(title):
    with pytest.raises(ValueError, match=f"the figure '{title}'.*'I2T R@5'"):
        Figure.parse(title)
