"""What counts of classes under normal noise prove of an image (Cohen et al., ICML 2019, arXiv 1902.02918).

If a class has the probability p > 1/2 under `N(0, sigma^2 I)`, it is the most frequent one at every point within
`sigma InvPhi(p)` in L2. Counts give a lower bound of p, which is too high with a probability of at most alpha.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import torch

from ..registry import check_count

ABSTAIN = -1


class Certificate(NamedTuple):
    """The class that a smoothed classifier keeps within a radius.

    Args:
        prediction (`int`): Number of the class, or `ABSTAIN`, -1.
        radius (`float`): In L2, in the scale of images in [0,1]; 0 of an abstention.
    """

    prediction: int
    radius: float

    @classmethod
    def of(cls, selection: Sequence[int], estimation: Sequence[int], sigma: float, alpha: float) -> Certificate:
        """The certificate of counts by class, `[K]` each, of two sets of draws that share none.

        Args:
            selection (`list[int]`): Counts of the draws that pick the class; of several the first.
            estimation (`list[int]`): Counts of the draws that bound its probability.
            sigma (`float`): Standard deviation of the noise.
            alpha (`float`): How probable it may be that the certificate does not hold.

        Example:
            >>> certificate = Certificate.of([2, 98], [10, 990], sigma=0.5, alpha=0.001)
            >>> certificate.prediction, round(certificate.radius, 3)
            (1, 0.989)
            >>> Certificate.of([60, 40], [520, 480], sigma=0.5, alpha=0.05)
            Certificate(prediction=-1, radius=0.0)
        """
        prediction = selection.index(max(selection))
        return cls.of_agreement(prediction, estimation[prediction], sum(estimation), sigma, alpha)

    @classmethod
    def of_agreement(cls, prediction: int, successes: int, draws: int, sigma: float, alpha: float) -> Certificate:
        """The certificate of a class that so many of some draws agree on, of which none has picked it.

        Example:
            >>> Certificate.of_agreement(1, 990, 1000, sigma=0.5, alpha=0.001) == Certificate.of(
            ...     [2, 98], [10, 990], sigma=0.5, alpha=0.001
            ... )
            True
        """
        bound = lower_bound(successes, draws, alpha)
        if bound < 0.5:
            return cls(ABSTAIN, 0.0)
        return cls(prediction, certified_radius(bound, sigma))

    @property
    def abstains(self) -> bool:
        """Whether it names no class."""
        return self.prediction == ABSTAIN

    def holds(self, label: int, radius: float) -> bool:
        """Whether it says that the class is the label at every point within a radius; an abstention never does."""
        return self.prediction == label != ABSTAIN and self.radius >= radius


def lower_bound(successes: int, draws: int, alpha: float) -> float:
    """Bounds a probability from below by counts, one-sided (Clopper and Pearson, 1934).

    It is the p of `P(Bin(draws, p) >= successes) = alpha`, to 1e-12; 0 of no success.

    Args:
        successes (`int`), draws (`int`): How often something was seen, and of how many.
        alpha (`float`): How probable it may be that the bound is above the probability, in (0,1).

    Raises:
        ValueError: for counts that are none, more successes than draws, and another alpha.

    Example:
        >>> round(lower_bound(990, 1000, alpha=0.001), 6)
        0.976036
    """
    check_alpha(alpha)
    check_count("draws", draws)
    check_count("successes", successes, least=0)
    if successes > draws:
        raise ValueError(f"You passed successes={successes} of draws={draws}. Pass no more than there were draws.")
    return _clopper_pearson(int(successes), int(draws), float(alpha))


def certified_radius(bound: float, sigma: float) -> float:
    """The L2 radius `sigma InvPhi(p)` within which a class of probability p stays the most frequent; 0 up to p = 1/2.

    Example:
        >>> round(certified_radius(0.976036, sigma=0.5), 3)
        0.989
    """
    return sigma * NormalDist().inv_cdf(bound) if bound > 0.5 else 0.0


def largest_radius(draws: int, alpha: float, sigma: float) -> float:
    """The radius that draws certify if all of them agree: no image can have a larger one.

    Raises:
        ValueError: for draws that are too few to certify anything, and says how many do.

    Example:
        >>> round(largest_radius(100, alpha=0.001, sigma=0.25), 3)
        0.375
        >>> largest_radius(9, alpha=0.001, sigma=0.25)
        Traceback (most recent call last):
        ValueError: You passed draws=9 and alpha=0.001. If all 9 agree, the class has a probability of at least 0.464,
        and nothing is certified up to 1/2. Pass draws from 10, or a larger alpha.
    """
    bound = lower_bound(draws, draws, alpha)
    if bound <= 0.5:
        enough = math.floor(math.log2(1 / alpha)) + 1
        raise ValueError(
            f"You passed draws={draws} and alpha={alpha}. If all {draws} agree, the class has a probability of at "
            f"least {bound:.3g}, and nothing is certified up to 1/2. Pass draws from {enough}, or a larger alpha."
        )
    return certified_radius(bound, sigma)


def predict(counts: Sequence[int], alpha: float) -> int:
    """The most frequent class, or -1 where its lead over the next one may be chance, without a radius.

    Args:
        counts (`list[int]`): By class, of two or more.
        alpha (`float`): Largest p-value of the test that is believed; see [`lead_p_value`].

    Raises:
        ValueError: for one class, counts that are none, no draw at all, and an alpha outside of (0,1).

    Example:
        >>> predict([70, 30], alpha=0.001), predict([52, 48], alpha=0.05)
        (0, -1)
    """
    check_alpha(alpha)
    if len(counts) < 2 or not sum(check_count("counts", count, least=0) for count in counts):
        raise ValueError(f"You passed counts={counts}. Pass counts of two classes or more, not all of them 0.")
    if lead_p_value(counts) > alpha:
        return ABSTAIN
    return counts.index(max(counts))


def lead_p_value(counts: Sequence[int]) -> float:
    """The p-value of the two-sided binomial test that the two most frequent classes are equally probable.

    Example:
        >>> lead_p_value([11, 0, 0])
        0.00097...
    """
    second, first = sorted(counts)[-2:]
    draws = first + second
    return min(1.0, 2 * math.exp(_log_tail(_log_choose(first, draws), first, draws, 0.5)))


def check_alpha(alpha: float) -> None:
    """Raises `ValueError` for what is no probability in (0,1)."""
    if isinstance(alpha, bool) or not isinstance(alpha, numbers.Real) or not 0 < alpha < 1:
        raise ValueError(
            f"You passed alpha={alpha!r}, how probable it may be that a certificate does not hold. Pass a number "
            "above 0 and below 1, such as 0.001."
        )


@lru_cache(maxsize=4096)  # images share counts: most have all draws, or nearly all
def _clopper_pearson(successes: int, draws: int, alpha: float) -> float:
    if successes == 0:
        return 0.0
    if successes == draws:
        return alpha ** (1 / draws)

    # The tail grows with p. Halving ends where no float lies between.
    log_choose = _log_choose(successes, draws)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _log_tail(log_choose, successes, draws, middle) > math.log(alpha):
            high = middle
        else:
            low = middle
    return low


def _log_choose(least: int, draws: int) -> torch.Tensor:
    """Logarithms of "draws over k", k from least to draws."""
    k = torch.arange(least, draws + 1, dtype=torch.float64)
    return math.lgamma(draws + 1) - torch.lgamma(k + 1) - torch.lgamma(draws - k + 1)


def _log_tail(log_choose: torch.Tensor, least: int, draws: int, p: float) -> float:
    """The logarithm of `P(Bin(draws, p) >= least)`."""
    k = torch.arange(least, draws + 1, dtype=torch.float64)
    return torch.logsumexp(log_choose + k * math.log(p) + (draws - k) * math.log1p(-p), dim=0).item()
