"""ScienceQA: which choice a text names."""

import pytest
from support.vlm_golden import GOLDEN

from hf_pmgaft.downstream.science_qa import choice_prompt, read_choice

CASES = GOLDEN["science_qa"]


def test_texts_name_the_choices_that_the_authors_rule_reads():
    read = [read_choice(text, count) for text, count in zip(CASES["generated"], CASES["num_choices"], strict=True)]
    assert read == CASES["parsed_index"]
    right = [one == answer for one, answer in zip(read, CASES["answers"], strict=True)]
    assert 100 * sum(right) / len(right) == pytest.approx(CASES["accuracy"])
    assert 100 * sum(right[1::2]) / len(right[1::2]) == pytest.approx(CASES["image_accuracy_odd_rows"])


def test_choices_are_named_by_letters():
    assert choice_prompt("Which?", ["a", "b"], hint="Look.").splitlines()[:4] == [
        "Context: Look.",
        "Which?",
        "A. a",
        "B. b",
    ]
    with pytest.raises(ValueError, match="You passed 1 choices"):
        choice_prompt("Which?", ["a"])
