"""What a walk is: one run of an attack on one image, written so that many go on side by side, each at its step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

# The state of several walks: tensors with a row per walk. "images", "labels" and "points" are always among them.
State = dict[str, torch.Tensor]


class Walk(Protocol):
    """An attack as walks: from a point of the ball around an image to the next one, by a loss and its gradient there.

    A row of the state depends on its image, label, seed and number alone, never on the rows beside it, so that walks
    enter and leave a batch at any time. Whoever drives them takes the logits of `state["points"]`, and ends a walk
    at its first misclassified point.
    """

    @property
    def num_walks(self) -> int:
        """How many independent walks an image has: restarts, or targets."""

    @property
    def ranks_classes(self) -> bool:
        """Whether a walk asks for the classes of its image in the order of their clean logits."""

    def begin(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        numbers: torch.Tensor,
        ranking: torch.Tensor | None,
    ) -> State:
        """The state of walks at their first points.

        Args:
            images (`torch.Tensor`): `[S,C,H,W]` in [0,1], float32.
            labels (`torch.Tensor`): `[S]`, or `[S,P]`.
            seeds (`torch.Tensor`): `[S]`, int64.
            numbers (`torch.Tensor`): `[S]`, int64: which of the walks of its image each is.
            ranking (`torch.Tensor`, *optional*): `[S,num_walks+1]`: classes from the most to the least likely.
        """

    def loss(self, state: State, logits: torch.Tensor) -> torch.Tensor:
        """What the walks maximise, `[S]`, of the logits `[S,K]` of their points."""

    def advance(self, state: State, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Takes each walk to its next point, in `state`; tells whose next point is its last one, `[S]`.

        Args:
            loss (`torch.Tensor`), gradient (`torch.Tensor`): `[S]` and `[S,C,H,W]`, at `state["points"]`.
        """


@dataclass(frozen=True)
class Lot:
    """Images that come to be attacked.

    Args:
        rows (`list[int]`): What they are called by whoever sent them.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[N,C,H,W]` in [0,1], and `[N]` or `[N,P]`.
        seeds (`torch.Tensor`): `[N]`, int64.
    """

    rows: list[int]
    images: torch.Tensor
    labels: torch.Tensor
    seeds: torch.Tensor


@dataclass(frozen=True)
class Ended:
    """Images whose walks have all ended.

    Args:
        rows (`list[int]`): As in their lots.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[N,C,H,W]`, and `[N]` or `[N,P]`.
        points (`torch.Tensor`): `[N,C,H,W]`: a misclassified point inside the ball, or the last one of a walk.
        fooled (`torch.Tensor`): `[N]`, bool: which of the two.
    """

    rows: list[int]
    images: torch.Tensor
    labels: torch.Tensor
    points: torch.Tensor
    fooled: torch.Tensor

    @classmethod
    def join(cls, several: Sequence[Ended]) -> Ended:
        """All images of several."""
        rows = [row for ended in several for row in ended.rows]
        names = ("images", "labels", "points", "fooled")
        return cls(rows, *(torch.cat([getattr(ended, name) for ended in several]) for name in names))
