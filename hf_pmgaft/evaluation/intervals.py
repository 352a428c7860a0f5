"""Intervals of accuracies and of their differences on the same images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959964


def wilson_interval(accuracy: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion (95 % by default).

    Example:
        >>> low, high = wilson_interval(0.5, n=100)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    if n == 0:
        return (0.0, 1.0)
    centre = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return (max(0.0, centre - half), min(1.0, centre + half))


def interval_of_mean(spans: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Interval of a mean over independent sets: how it would scatter with other images of the same sets.

    The sets' intervals are joined side by side (MOVER, Donner and Zou, 2012): that of one set is its own, and no end
    leaves 0 to 1.

    Args:
        spans (list of `tuple[float, float, float]`): Of each set its value, and the ends of its interval.

    Example:
        >>> interval_of_mean([(0.5, 0.4, 0.6)])
        (0.4, 0.6)
        >>> low, high = interval_of_mean([(0.5, 0.4, 0.6), (0.7, 0.6, 0.8)])
        >>> round(low, 3), round(high, 3)
        (0.529, 0.671)
    """
    mean = sum(value for value, _, _ in spans) / len(spans)
    below = math.hypot(*(value - low for value, low, _ in spans))
    above = math.hypot(*(high - value for value, _, high in spans))
    return mean - below / len(spans), mean + above / len(spans)


@dataclass
class PairedDifference:
    """How much more often the second of two models is right on the same images.

    Attributes:
        difference (`float`): Accuracy of the second minus that of the first.
        interval (`tuple[float, float]`): 95 %, by the adjusted Wald method for paired proportions (Bonett and Price,
            2012): two accuracies on the same images are not independent.
        p_value (`float`): Exact two-sided McNemar test of the images on which they disagree.
        gained, lost, n (`int`): Images that only the second, only the first got right; all images.

    Example:
        >>> pair = paired_difference([0, 0, 0, 1], [1, 1, 0, 1])
        >>> pair.n, pair.gained, pair.lost, pair.p_value
        (4, 2, 0, 0.5)
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    gained: int
    lost: int
    n: int


def paired_difference(first: Sequence[int], second: Sequence[int]) -> PairedDifference:
    """Compares two lists of verdicts, 1 for right and 0 for wrong, image by image.

    Example:
        >>> pair = paired_difference([0, 0, 0, 1], [1, 1, 0, 1])
        >>> pair.gained, pair.lost, pair.difference
        (2, 0, 0.5)
    """
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    gained = sum(b > a for a, b in pairs)
    lost = sum(a > b for a, b in pairs)
    difference = (gained - lost) / n if n else 0.0

    # Bonett and Price add a half to each of the four cells.
    up = (gained + 1) / (n + 2)
    down = (lost + 1) / (n + 2)
    half = Z_95 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    interval = (max(-1.0, up - down - half), min(1.0, up - down + half))

    return PairedDifference(difference, interval, _mcnemar(gained, lost), gained, lost, n)


def difference_over_seeds(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]
) -> tuple[float, float, float]:
    """How much more often the second of two methods is right, over several seeds of training and the same images.

    The variance over images (of an image's mean over seeds) and that over seeds (of a seed's mean over images) are
    added, which counts their common part twice: the interval is no narrower than it should be.

    Args:
        first, second (list of list of `int`): By seed, verdicts on the same images, 1 for right and 0 for wrong.

    Returns:
        `tuple[float, float, float]`: Difference of the means, and its 95 % interval; of one seed that of
        [`paired_difference`].

    Example:
        >>> difference_over_seeds([[0, 0, 1, 1], [0, 0, 0, 1]], [[1, 0, 1, 1], [1, 0, 1, 1]])
        (0.375, -0.15..., 0.90...)
    """
    if len(first) == 1:
        pair = paired_difference(first[0], second[0])
        return (pair.difference, *pair.interval)
    seeds = [[b - a for a, b in zip(ours, theirs, strict=True)] for ours, theirs in zip(first, second, strict=True)]
    images = [statistics.fmean(values) for values in zip(*seeds, strict=True)]
    of_seeds = [statistics.fmean(values) for values in seeds]

    variance = statistics.variance(of_seeds) / len(of_seeds)
    if len(images) > 1:
        variance += statistics.variance(images) / len(images)
    mean, half = statistics.fmean(of_seeds), Z_95 * math.sqrt(variance)
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def _mcnemar(gained: int, lost: int) -> float:
    """Two-sided p: the exact binomial test, or of very many pairs its normal approximation."""
    n = gained + lost
    if n >= 1000:
        return math.erfc((abs(gained - lost) - 1) / math.sqrt(2 * n))
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return float(min(1.0, 2 * tail / 2**n))
