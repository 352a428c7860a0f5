"""Scores of written texts: targets, captions and answers to questions."""

import pytest

from hf_pmgaft.downstream.answers import caption_score, contains, normalise_answer, vqa_accuracy


def test_vqa_accuracy_is_the_mean_over_the_other_answers():
    answers = ["2 cats", "two cats", *["dog"] * 8]
    assert vqa_accuracy("Two cats.", answers) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert vqa_accuracy("a dog", answers) == 1
    assert vqa_accuracy("bird", answers) == 0
    assert (vqa_accuracy("cat", ["cat"]), vqa_accuracy("cat", ["dog"])) == (1, 0)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The Cat", "cat"),
        ("a dog, an owl!", "dog owl"),
        ("ten", "10"),
        ("none", "0"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("dont", "dont"),
        ("don't", "dont"),
        ("well-known/read", "well known read"),
        ("flag: france\n", "flag: france"),
    ],
)
def test_answers_are_compared_as_the_official_evaluation_does(text, expected):
    assert normalise_answer(text) == expected


def test_captions_are_scored_against_the_best_reference():
    assert caption_score("a red cat", ["a dog", "a red cat"]) == 1
    assert caption_score("zzz", ["a red cat"]) < 0.05
    assert 0.3 < caption_score("a red cap", ["a red cat"]) < 1


def test_a_target_counts_wherever_it_stands():
    assert contains("so, money  bag\n", "money bag") and not contains("money", "money bag")
