"""Scores of written texts: targets and captions."""

import pytest
from support.vlm_golden import GOLDEN

from hf_pmgaft.downstream.answers import caption_score, contains
from hf_pmgaft.downstream.scores import SuccessScore, VqaScore


def test_captions_are_scored_against_the_best_reference():
    assert caption_score("a red cat", ["a dog", "a red cat"]) == 1
    assert caption_score("zzz", ["a red cat"]) < 0.05
    assert 0.3 < caption_score("a red cap", ["a red cat"]) < 1


def test_a_target_counts_wherever_it_stands():
    assert contains("so, money  bag\n", "money bag") and not contains("money", "money bag")


@pytest.mark.parametrize("case", GOLDEN["targeted_success"]["cases"], ids=lambda case: case["caption"])
def test_success_ignores_capitals_where_robust_clip_does(case):
    kept_out = SuccessScore(case["target"], ignores_case=True).of(case["caption"], 0)
    assert kept_out == (not case["success"])
    assert SuccessScore("Cat").of("a cat", 0) == 1


def test_of_a_generated_answer_what_comes_before_the_next_question_is_read():
    assert VqaScore([["red bus"]], cuts=True).of("red bus, Question: what", 0) == 1
    assert VqaScore([["red bus"]]).of("red bus, Question: what", 0) == 0
