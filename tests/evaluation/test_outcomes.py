"""What became of images, summed up: shares, pixel accuracy and mean IoU, their intervals, and pairs of models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_pmgaft.evaluation.figure import Figure
from hf_pmgaft.evaluation.intervals import paired_difference, wilson_interval
from hf_pmgaft.evaluation.outcomes import count_right, interval, paired, summed, worst_case
from hf_pmgaft.evaluation.segmentation import count_pixels

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "segmentation.json").read_text())["metrics"]
MIOU, ACCURACY = Figure("mIoU"), Figure("pixel accuracy")


def maps(seed: int, count: int = 12, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and masks `[N,6,7]`, some pixels ignored; images differ in how much of them is right."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.randint(-1, classes, (count, 6, 7), generator=rng)
    guesses = torch.randint(0, classes, (count, 6, 7), generator=rng)
    is_right = torch.rand(count, 6, 7, generator=rng) < torch.linspace(0.1, 0.9, count)[:, None, None]
    return torch.where(is_right & (masks >= 0), masks, guesses), masks


def outcomes_of(predicted: torch.Tensor, masks: torch.Tensor) -> tuple[list, list]:
    """By image what the mean IoU, and what the pixel accuracy is summed up from."""
    counts = count_pixels(predicted, masks)
    by_class = [of_classes for _, of_classes in counts]
    return by_class, [[count_right(of_classes), labelled] for labelled, of_classes in counts]


def transcribed(predicted: torch.Tensor, masks: torch.Tensor) -> tuple[float, float]:
    """Mean IoU and pixel accuracy over all pixels at once."""
    predicted, masks = predicted[masks >= 0], masks[masks >= 0]
    ious = []
    for number in range(int(max(predicted.max(), masks.max())) + 1):
        union = ((predicted == number) | (masks == number)).sum()
        if union:
            ious.append(((predicted == number) & (masks == number)).sum() / union)
    return (sum(ious) / len(ious)).item(), (predicted == masks).float().mean().item()


# ---- Sums ----


def test_pooled_figures_are_those_of_the_authors_code():
    predicted, masks = (torch.tensor(GOLDEN[key]) for key in ("predictions", "labels"))
    by_class, of_pixels = outcomes_of(predicted, masks)
    assert summed(MIOU, by_class) == pytest.approx(GOLDEN["mean_iou"], abs=1e-9)
    assert summed(ACCURACY, of_pixels) == pytest.approx(GOLDEN["pixel_accuracy"], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_pooled_figures_are_those_of_all_pixels_at_once(seed):
    predicted, masks = maps(seed)
    by_class, of_pixels = outcomes_of(predicted, masks)
    assert (summed(MIOU, by_class), summed(ACCURACY, of_pixels)) == pytest.approx(transcribed(predicted, masks))


def test_a_class_that_is_predicted_alone_counts_as_nothing_right_and_one_that_is_nowhere_not_at_all():
    predicted, masks = torch.tensor([[[0, 0, 3, 0]]]), torch.tensor([[[0, 0, 0, -1]]])
    by_class, of_pixels = outcomes_of(predicted, masks)
    assert by_class == [[[0, 2, 3], [3, 0, 1]]]
    assert summed(MIOU, by_class) == pytest.approx((2 / 3 + 0) / 2)
    assert summed(ACCURACY, of_pixels) == pytest.approx(2 / 3)


def test_a_mask_that_is_all_ignored_counts_nowhere():
    predicted, masks = maps(0)
    alone = outcomes_of(predicted[:3], masks[:3])
    masks[3] = -1
    both = outcomes_of(predicted[:4], masks[:4])
    assert both[0][3] == [] and both[1][3] == [0, 0]
    for figure, one, other in zip((MIOU, ACCURACY), alone, both, strict=True):
        assert summed(figure, one) == summed(figure, other)
    assert math.isnan(summed(MIOU, [[]])) and math.isnan(summed(ACCURACY, [[0, 0]]))


def test_the_worst_case_is_the_outcome_with_least_right_and_the_first_of_equals():
    assert worst_case([[[0, 3, 9]]], [[[1, 3, 5]]], [[[0, 4, 9]]]) == [[[0, 3, 9]]]
    assert worst_case([[5, 9], [4, 9]], [[2, 9], [4, 9]]) == [[2, 9], [4, 9]]
    chosen = GOLDEN["worst_case"]
    predicted = torch.tensor(chosen["predictions_by_attack"])
    masks = torch.tensor(chosen.get("labels", GOLDEN["labels"]))
    columns = [outcomes_of(of_attack, masks) for of_attack in predicted]
    worst = worst_case(*(of_pixels for _, of_pixels in columns))
    shares = [right / labelled for right, labelled in worst]
    expected = np.array(chosen["accuracy_by_attack_and_image"]).min(0)
    assert shares == pytest.approx(expected.tolist(), abs=1e-6)


# ---- Intervals ----


def test_the_interval_of_images_of_one_pixel_is_about_wilsons():
    of_pixels = [[int(number < 130), 1] for number in range(200)]
    assert interval(ACCURACY, 0.65, 200, of_pixels) == pytest.approx(wilson_interval(0.65, 200), abs=0.015)


def test_an_interval_is_the_same_every_time_and_shrinks_with_images():
    few, many = (outcomes_of(*maps(0, count)) for count in (10, 160))
    for figure, small, large in zip((MIOU, ACCURACY), few, many, strict=True):
        low, high = interval(figure, summed(figure, small), 10, small)
        assert (low, high) == interval(figure, summed(figure, small), 10, small)
        assert low < summed(figure, small) < high
        narrow = interval(figure, summed(figure, large), 160, large)
        assert narrow[1] - narrow[0] < 0.5 * (high - low)


def test_a_share_of_images_keeps_wilsons_interval():
    assert interval(Figure(), 0.4, 50, []) == wilson_interval(0.4, 50)


def test_pairs_of_images_of_one_pixel_are_about_those_of_verdicts():
    rng = np.random.default_rng(0)
    first = (rng.random(300) < 0.5).astype(int).tolist()
    second = [int(right or number % 7 == 0) for number, right in enumerate(first)]
    of_pixels = [[[right, 1] for right in verdicts] for verdicts in (first, second)]
    pair, verdicts = paired(ACCURACY, *of_pixels), paired_difference(first, second)
    assert (pair.difference, pair.gained, pair.lost, pair.n) == pytest.approx(
        (verdicts.difference, verdicts.gained, verdicts.lost, 300)
    )
    assert pair.interval == pytest.approx(verdicts.interval, abs=0.01)
    assert pair.p_value < 0.001 and paired(Figure(), first, second) == verdicts


@pytest.mark.parametrize("figure", [MIOU, ACCURACY], ids=str)
def test_a_model_does_not_differ_from_itself(figure):
    outcomes = outcomes_of(*maps(0))[figure == ACCURACY]
    pair = paired(figure, outcomes, outcomes)
    assert (pair.difference, pair.interval, pair.p_value, pair.gained, pair.lost) == (0, (0, 0), 1, 0, 0)


def test_a_pair_is_surer_than_its_two_intervals():
    """Both models are right on the same images, which differ much more than the models do."""
    predicted, masks = maps(0, 80)
    better = torch.where(torch.arange(7) == 3, masks.clamp_min(0), predicted)
    first, second = (outcomes_of(each, masks)[0] for each in (predicted, better))
    pair = paired(MIOU, first, second)
    single = interval(MIOU, summed(MIOU, first), 80, first)
    assert pair.difference > 0 and pair.interval[0] > 0 and pair.p_value < 0.01
    assert pair.interval[1] - pair.interval[0] < single[1] - single[0]
