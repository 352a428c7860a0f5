"""What draws say: majorities, and predictions of a smoothed classifier with their abstentions."""

import pytest
import torch
from support.defended import GOLDEN

from hf_pmgaft.evaluation.draw_rules import Majority, Prediction, is_majority


@pytest.mark.parametrize(
    ("draws", "drawn"),
    [
        ([1], (True, 1.0, True, True)),
        ([1, 0], (False, 0.5, False, True)),
        ([0, 1, 1], (True, 2 / 3, False, False)),
        ([1, 1, 0, 0, 0], (False, 0.4, False, True)),
        ([0, 0, 1, 1, 1], (True, 0.6, False, False)),
    ],
)
def test_a_tie_is_wrong_and_the_first_half_has_the_draw_in_the_middle(draws, drawn):
    assert Majority().drawn(draws)[:4] == pytest.approx(drawn)
    assert Majority().drawn(draws).abstains is None
    assert is_majority(draws) is drawn[0]


def drawn_classes(counts: list[int]) -> torch.Tensor:
    """Classes of the draws of one image, `[1,N]`, the rarest first."""
    classes = [number for number, count in enumerate(counts) for _ in range(count)]
    return torch.tensor([classes[::-1]])


@pytest.mark.parametrize("case", GOLDEN["smoothing"]["predict"], ids=lambda case: "-".join(map(str, case["counts"])))
def test_predictions_are_the_golden_ones_and_an_abstention_is_wrong(case):
    rule, classes = Prediction(case["alpha"]), drawn_classes(case["counts"])
    for label in range(5):
        (noted,) = rule.noted(classes, torch.tensor([label]))
        drawn = rule.drawn(noted)
        assert drawn.stands is (label == case["prediction"])
        assert drawn.abstains is (case["prediction"] == -1)
        assert drawn.share == case["counts"][label] / sum(case["counts"])
        assert drawn.every is (drawn.share == 1)


def test_what_is_noted_does_not_grow_with_the_draws_and_knows_the_first_half():
    classes = torch.tensor([[1] * 600 + [0] * 400, [0] * 1000])
    noted = Prediction(0.001).noted(classes, torch.tensor([0, 3]))
    assert noted == [[[1000, 400, 600, 400], [500, 0, 500, 0]], [[1000, 0, 1000, 0], [500, 0, 500, 0]]]
    drawn = Prediction(0.001).drawn([[1000, 600, 600, 400], [500, 100, 400, 100]])
    assert drawn.stands and not drawn.first_half


def test_a_tie_with_the_right_class_abstains():
    (noted,) = Prediction(0.5).noted(drawn_classes([20, 20, 3]), torch.tensor([1]))
    drawn = Prediction(0.5).drawn(noted)
    assert (drawn.stands, drawn.abstains) == (False, True)


def test_the_worst_of_several_points_abstains_where_one_does():
    sure, unsure = ([[100, 90, 90, 10], [50, 45, 45, 5]], [[100, 50, 50, 48], [50, 25, 25, 24]])
    worst = Prediction(0.01).drawn(sure).worst_with(Prediction(0.01).drawn(unsure))
    assert worst == (False, 0.5, False, False, True)


@pytest.mark.parametrize(("draws", "alpha", "enough"), [(10, 0.001, 11), (1, 0.05, 6), (5, 0.05, 6)])
def test_draws_that_are_too_few_to_name_a_class_are_refused(draws, alpha, enough):
    with pytest.raises(ValueError, match=f"Even if all {draws} agree, .* Pass draws from {enough}, or"):
        Prediction(alpha).check(draws)
    Prediction(alpha).check(enough)
