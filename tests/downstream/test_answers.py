"""Scores of written texts: targets and captions."""

from hf_pmgaft.downstream.answers import caption_score, contains


def test_captions_are_scored_against_the_best_reference():
    assert caption_score("a red cat", ["a dog", "a red cat"]) == 1
    assert caption_score("zzz", ["a red cat"]) < 0.05
    assert 0.3 < caption_score("a red cap", ["a red cat"]) < 1


def test_a_target_counts_wherever_it_stands():
    assert contains("so, money  bag\n", "money bag") and not contains("money", "money bag")
