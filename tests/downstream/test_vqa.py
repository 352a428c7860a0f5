"""VQA accuracy: golden values of both rules, and how answers are normalised and cut."""

import pytest
from support.vlm_golden import GOLDEN

from hf_pmgaft.downstream.vqa import CONTRACTIONS, by_frequency, cut_answer, normalise_answer, vqa_accuracy

CASES = GOLDEN["vqa"]


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["prediction"])
def test_accuracies_are_the_golden_ones(case):
    answers, text = case["answers"], case["prediction"]
    assert normalise_answer(text) == case["prediction_normalised"]
    assert 100 * vqa_accuracy(text, answers) == pytest.approx(case["accuracy"], abs=5e-3)
    assert 100 * vqa_accuracy(text, answers, "official") == pytest.approx(case["accuracy_official"], abs=5e-3)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The Cat", "cat"),
        ("a dog, an owl!", "dog owl"),
        ("none", "0"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # of two apostrophes the table restores one
        ("couldn'tve", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("well-known/read", "well known read"),
        ("well-known - read", "wellknown read"),
        ("flag: france\n", "flag: france"),
    ],
)
def test_answers_are_compared_as_the_official_evaluation_does(text, expected):
    assert normalise_answer(text) == expected


def test_contractions_are_restored_from_what_lacks_one_apostrophe():
    assert len(CONTRACTIONS) == 114
    odd = {key: word for key, word in CONTRACTIONS.items() if len(word) != len(key) + 1}
    assert odd == {"somebody'd": "somebodyd"}


@pytest.mark.parametrize("case", CASES["post_processing"], ids=lambda case: case["generated"])
def test_generated_texts_are_cut(case):
    assert cut_answer(case["generated"]) == case["answer"]


@pytest.mark.parametrize("case", CASES["attack_targets"])
def test_answers_are_attacked_by_frequency(case):
    assert by_frequency(case["answers"])[:5] == case["by_frequency"]


def test_a_single_answer_counts_as_all_of_them_and_none_is_refused():
    assert (vqa_accuracy("cat", ["cat"]), vqa_accuracy("cat", ["dog"])) == (1, 0)
    with pytest.raises(ValueError, match="no right answers"):
        vqa_accuracy("cat", [])
    with pytest.raises(ValueError, match="There is no rule"):
        vqa_accuracy("cat", ["cat"], "loosely")
