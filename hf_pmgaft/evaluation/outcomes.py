"""What became of images or queries, one by one: summed up, the worst of several, intervals, and pairs of models.

An outcome is whether an image or a query is right, 0 or 1. Of segmentation it counts pixels: for the pixel accuracy
`[right, labelled]`, for the mean IoU `[class, intersection, union]` of each class that is in the image or its
prediction. Counts are summed over the set before anything is divided, so intervals are those of the bootstrap over
images (Efron, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .figure import MEAN_IOU, Figure
from .intervals import PairedDifference, paired_difference, wilson_interval

Outcome = Any  # `bool`, `[right, labelled]`, or a list of `[class, intersection, union]`
RESAMPLES = 2000


def count_right(outcome: Outcome) -> int:
    """How much is right: 1 or 0 of an image that is classified, or a number of pixels.

    Example:
        >>> count_right(True), count_right([30, 64]), count_right([[0, 10, 20], [2, 20, 34]])
        (1, 30, 30)
    """
    if not isinstance(outcome, (list, tuple)):
        return int(outcome)
    if outcome and not isinstance(outcome[0], (list, tuple)):
        return outcome[0]
    return sum(intersection for _, intersection, _ in outcome)


def worst_case(*columns: Sequence[Outcome]) -> list[Outcome]:
    """Per image the outcome of which least is right, from lists of outcomes per image.

    Example:
        >>> worst_case([True, True, False], [True, False, True])
        [True, False, False]
        >>> worst_case([[30, 64]], [[12, 64]])
        [[12, 64]]
    """
    return [min(of_image, key=count_right) for of_image in zip(*columns, strict=True)]


def summed(figure: Figure, outcomes: Sequence[Outcome]) -> float:
    """A figure from 0 to 1 over all outcomes; NaN if nothing was labelled.

    The mean IoU is over classes that are in some mask or prediction: one that is predicted alone counts as 0.

    Example:
        >>> summed(Figure(), [True, False]), summed(Figure.parse("pixel accuracy"), [[30, 64], [2, 64]])
        (0.5, 0.25)
        >>> summed(Figure.parse("mIoU"), [[[0, 10, 20], [2, 20, 40]], [[0, 0, 20]]])
        0.375
    """
    if not figure.is_of_pixels:
        return sum(map(bool, outcomes)) / len(outcomes)
    parts, wholes = _counts(figure, outcomes)
    return float(_ratio(parts.sum(0), wholes.sum(0)))


def ious(outcomes: Sequence[Outcome]) -> dict[int, float]:
    """The IoU of each class that is in some mask or prediction.

    Example:
        >>> ious([[[0, 10, 20], [2, 20, 40]], [[0, 0, 20]]])
        {0: 0.25, 2: 0.5}
    """
    pooled: dict[int, list[int]] = {}
    for outcome in outcomes:
        for number, intersection, union in outcome:
            of_class = pooled.setdefault(number, [0, 0])
            of_class[0] += intersection
            of_class[1] += union
    return {number: part / whole for number, (part, whole) in sorted(pooled.items())}


def interval(figure: Figure, value: float, count: int, outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """The 95 % interval of a figure: Wilson's of a share, the percentile bootstrap's over images of pooled counts.

    Args:
        figure (`Figure`), value (`float`), count (`int`): The figure, what it is, and over how many images.
        outcomes (`list`): Of the images; a share needs none.

    Example:
        >>> interval(Figure.parse("pixel accuracy"), 0.5, 2, [[32, 64], [32, 64]])
        (0.5, 0.5)
    """
    if not figure.is_of_pixels:
        return wilson_interval(value, count)
    if not outcomes:
        return (0.0, 1.0)
    low, high = np.nanpercentile(_resampled(figure, outcomes), [2.5, 97.5])
    return float(low), float(high)


def paired(figure: Figure, first: Sequence[Outcome], second: Sequence[Outcome]) -> PairedDifference:
    """Compares two models on the same images, by the paired bootstrap where a figure is pooled over pixels.

    Its p is twice the smaller share of resamples in which the difference is no larger, or no smaller, than 0.

    Example:
        >>> pair = paired(Figure.parse("pixel accuracy"), [[32, 64], [8, 64]], [[40, 64], [8, 64]])
        >>> pair.difference, pair.gained, pair.lost, pair.n
        (0.0625, 1, 0, 2)
    """
    if not figure.is_of_pixels:
        return paired_difference(first, second)

    pairs = list(zip(map(count_right, first), map(count_right, second), strict=True))
    differences = _resampled(figure, second) - _resampled(figure, first)
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    below = (np.count_nonzero(differences <= 0) + 1) / (RESAMPLES + 1)
    above = (np.count_nonzero(differences >= 0) + 1) / (RESAMPLES + 1)
    return PairedDifference(
        difference=summed(figure, second) - summed(figure, first),
        interval=(float(low), float(high)),
        p_value=min(1.0, 2 * min(below, above)),
        gained=sum(b > a for a, b in pairs),
        lost=sum(a > b for a, b in pairs),
        n=len(pairs),
    )


def _resampled(figure: Figure, outcomes: Sequence[Outcome]) -> np.ndarray:
    """The figure of sets that are drawn from the images with replacement, `[RESAMPLES]`; the same draws every time."""
    parts, wholes = _counts(figure, outcomes)
    count = len(outcomes)
    times = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return _ratio(times @ parts, times @ wholes)


def _counts(figure: Figure, outcomes: Sequence[Outcome]) -> tuple[np.ndarray, np.ndarray]:
    """What is divided by what: per image, and of the mean IoU per class, `[N,C]` each."""
    if figure.kind != MEAN_IOU:
        pairs = np.array(outcomes, dtype=np.float64).reshape(-1, 2)
        return pairs[:, :1], pairs[:, 1:]

    numbers = sorted({number for outcome in outcomes for number, _, _ in outcome})
    place = {number: column for column, number in enumerate(numbers)}
    counts = np.zeros((2, len(outcomes), len(numbers)))
    for row, outcome in enumerate(outcomes):
        for number, intersection, union in outcome:
            counts[:, row, place[number]] = intersection, union
    return counts[0], counts[1]


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """The mean over the last axis of parts by wholes, where there is a whole; NaN where there is none."""
    exists = wholes > 0
    shares = np.divide(parts, wholes, out=np.zeros_like(parts, dtype=np.float64), where=exists)
    number = exists.sum(-1)
    return np.where(number > 0, shares.sum(-1) / np.maximum(number, 1), math.nan)
