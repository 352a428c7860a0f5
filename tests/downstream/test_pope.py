"""POPE: the rule by which a text says yes or no, F1, and which objects are asked for."""

import pytest
from support.vlm_golden import GOLDEN

from hf_pmgaft.downstream.pope import NO, YES, f1_score, object_questions, read_yes_no

CASES = GOLDEN["pope"]
# Sofa is in most images; a lamp is only ever where a sofa is, a ball where a dog is.
OBJECTS = [["cat", "sofa"], ["sofa", "lamp"], ["dog", "ball"], ["dog", "ball"], ["sofa"], ["bus"]]


def test_texts_say_what_the_benchmark_reads():
    assert [read_yes_no(text) for text in CASES["texts"]] == CASES["answers"]
    assert read_yes_no("") == YES


def test_f1_is_the_golden_one_for_each_category():
    scores = [f1_score(CASES["answers"], category["labels"]) for category in CASES["categories"]]
    assert scores == pytest.approx([category["f1"] for category in CASES["categories"]], abs=1e-9)
    assert sum(scores) / 3 == pytest.approx(CASES["mean_f1"], abs=1e-9)
    assert f1_score([NO, NO], [NO, NO]) == 0


@pytest.mark.parametrize("sampling", ["random", "popular", "adversarial"])
def test_half_of_the_questions_are_for_what_is_there(sampling):
    questions = object_questions(OBJECTS, sampling, per_image=4)
    for place, present in enumerate(OBJECTS):
        asked = {label: [q.object for q in questions if q.place == place and q.label == label] for label in (YES, NO)}
        assert len(asked[YES]) == len(asked[NO]) == min(2, len(present))
        assert set(asked[YES]) <= set(present) and not set(asked[NO]) & set(present)
    assert questions == object_questions(OBJECTS, sampling, per_image=4)


def absent(sampling: str, place: int, seed: int = 0) -> str:
    questions = object_questions(OBJECTS, sampling, per_image=2, seed=seed)
    return next(q.object for q in questions if q.place == place and q.label == NO)


def test_absent_objects_are_any_the_most_frequent_or_the_most_often_beside():
    seeds = range(20)
    assert {absent("popular", 5, seed) for seed in seeds} == {absent("popular", 2, seed) for seed in seeds} == {"sofa"}
    assert {absent("adversarial", 0, seed) for seed in seeds} == {"lamp"}
    assert {absent("adversarial", 1, seed) for seed in seeds} == {"cat"}
    assert len({absent("random", 5, seed) for seed in seeds}) > 2


def test_objects_that_are_not_known_and_odd_numbers_are_refused():
    with pytest.raises(ValueError, match="no objects for 1 images, such as image 1"):
        object_questions([["cat"], []], "random")
    with pytest.raises(ValueError, match="per_image=3"):
        object_questions(OBJECTS, "random", per_image=3)
    with pytest.raises(ValueError, match="There is no sampling"):
        object_questions(OBJECTS, "rare")
