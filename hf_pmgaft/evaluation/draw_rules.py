"""What draws of a random defence say of an image: the majority of right ones, or the class that a test believes.

Draws are marked one by one, noted per image as a verdict file holds them, and read again as [`Drawn`].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from ..attacks.losses import correct
from ..defences.certificate import ABSTAIN, check_alpha, predict

# What is noted of an image at one point, in whole numbers.
Noted = list[Any]


class Drawn(NamedTuple):
    """What draws say of an image at one point, or the worst of several points.

    Args:
        stands (`bool`): Whether its class is the right one by the rule.
        share (`float`): How many of the draws are right.
        every (`bool`): Whether all of them are: the verdict, if one wrong draw were enough.
        first_half (`bool`): The verdict of the first half of them.
        abstains (`bool`, *optional*): Whether they name no class, at any of the points; `None` where they always do.
    """

    stands: bool
    share: float
    every: bool
    first_half: bool
    abstains: bool | None = None

    def worst_with(self, *others: Drawn) -> Drawn:
        """The least of each.

        Example:
            >>> Drawn(True, 1.0, True, True).worst_with(Drawn(True, 0.6, False, True))
            Drawn(stands=True, share=0.6, every=False, first_half=True, abstains=None)
        """
        points = (self, *others)
        return Drawn(
            stands=all(point.stands for point in points),
            share=min(point.share for point in points),
            every=all(point.every for point in points),
            first_half=all(point.first_half for point in points),
            abstains=None if self.abstains is None else any(point.abstains for point in points),
        )


@dataclass(frozen=True)
class Majority:
    """An image is right if more than half of its draws are. Noted is each draw: 1 if it is right, else 0."""

    verdict: ClassVar[str] = "majority"
    default_draws: ClassVar[int] = 5  # as Croce et al. (ICML 2022, arXiv 2202.13711) judge

    def check(self, draws: int) -> None:
        """Any number of draws has a majority, or a tie."""

    def mark(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What is kept of one draw of each image, `[B,K], [B] -> [B]`."""
        return correct(logits, labels).int()

    def noted(self, marks: torch.Tensor, labels: torch.Tensor) -> list[Noted]:
        """What is noted of each image, from the marks of its draws `[B,N]`."""
        return marks.tolist()

    def drawn(self, noted: Noted) -> Drawn:
        """What draws say; a tie is wrong.

        Example:
            >>> Majority().drawn([1, 1, 0, 0])
            Drawn(stands=False, share=0.5, every=False, first_half=True, abstains=None)
        """
        half = noted[: _half(len(noted))]
        return Drawn(is_majority(noted), sum(noted) / len(noted), all(noted), is_majority(half))


@dataclass(frozen=True)
class Prediction:
    """An image is right if its class is what a smoothed classifier predicts (Cohen et al., ICML 2019, `Predict`).

    That is the most frequent class, unless a two-sided binomial test finds that its lead over the next one may be
    chance: then it abstains, which is wrong. Noted are, of all draws and of the first half of them: how many there
    are, how often the right class was drawn, and how often the most frequent one and the next.

    Args:
        alpha (`float`): Largest p-value of the test that is believed: how probable a wrong class may be, where it does
            not abstain.
    """

    alpha: float
    verdict: ClassVar[str] = "prediction"
    default_draws: ClassVar[int] = 100

    def check(self, draws: int) -> None:
        """Raises `ValueError` for draws that are too few to name any class.

        Example:
            >>> Prediction(alpha=0.001).check(10)
            Traceback (most recent call last):
            ValueError: You passed draws=10 and alpha=0.001. Even if all 10 agree, ...
        """
        check_alpha(self.alpha)
        if predict([draws, 0], self.alpha) == ABSTAIN:
            enough = next(count for count in itertools.count(draws) if predict([count, 0], self.alpha) != ABSTAIN)
            raise ValueError(
                f"You passed draws={draws} and alpha={self.alpha}. Even if all {draws} agree, the p-value is above "
                f"alpha, so that every image is abstained on. Pass draws from {enough}, or a larger alpha."
            )

    def mark(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The class of one draw of each image, `[B,K] -> [B]`; of equal ones the first."""
        return logits.argmax(dim=1)

    def noted(self, marks: torch.Tensor, labels: torch.Tensor) -> list[Noted]:
        """What is noted of each image, from the classes of its draws `[B,N]` and its label.

        Example:
            >>> Prediction(0.05).noted(torch.tensor([[2, 0, 2, 2]]), torch.tensor([0]))
            [[[4, 1, 3, 1], [2, 1, 1, 1]]]
        """
        return [
            [_counts(drawn, label) for drawn in (of_image, of_image[: _half(len(of_image))])]
            for of_image, label in zip(marks.cpu(), labels.tolist(), strict=True)
        ]

    def drawn(self, noted: Noted) -> Drawn:
        """What draws say.

        Example:
            >>> Prediction(0.05).drawn([[40, 30, 30, 10], [20, 12, 12, 8]])
            Drawn(stands=True, share=0.75, every=False, first_half=False, abstains=False)
            >>> Prediction(0.001).drawn([[40, 25, 25, 15], [20, 12, 12, 8]]).abstains
            True
        """
        whole, half = noted
        draws, right, _, _ = whole
        return Drawn(
            stands=self._is_right(*whole),
            share=right / draws,
            every=right == draws,
            first_half=self._is_right(*half),
            abstains=self._abstains(*whole),
        )

    def _is_right(self, draws: int, right: int, first: int, second: int) -> bool:
        return right == first and not self._abstains(draws, right, first, second)

    def _abstains(self, draws: int, right: int, first: int, second: int) -> bool:
        return predict([first, second], self.alpha) == ABSTAIN


Rule = Majority | Prediction


def is_majority(draws: Sequence[int]) -> bool:
    """Whether more than half of some draws are right.

    Example:
        >>> is_majority([1, 1, 0]), is_majority([1, 0])
        (True, False)
    """
    return 2 * sum(draws) > len(draws)


def _half(draws: int) -> int:
    """How many the first half of so many draws are, that in the middle among them."""
    return (draws + 1) // 2


def _counts(classes: torch.Tensor, label: int) -> list[int]:
    """How many draws `[N]` there are, how many of the label, of the most frequent class and of the next."""
    counts = torch.bincount(classes, minlength=2)
    right = int(counts[label]) if label < len(counts) else 0
    first, second = counts.topk(2).values.tolist()
    return [len(classes), right, first, second]
