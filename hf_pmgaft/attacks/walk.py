"""What a walk is: one run of an attack on one image, written so that many go on side by side, each at its step."""

from __future__ import annotations

from typing import Protocol

import torch

# The state of several walks: tensors with a row per walk. "images", "labels" and "points" are always among them.
State = dict[str, torch.Tensor]


class Walk(Protocol):
    """An attack as walks: from a point of the ball around an image to the next one, by a loss and its gradient there.

    A row of the state depends on its image, label, seed and number alone, never on the rows beside it, so that walks
    enter and leave a batch at any time. Whoever drives them takes the logits of `state["points"]`, and ends a walk
    at its first misclassified point.

    Attributes:
        num_walks (`int`): Independent walks of one image: restarts, or targets.
        ranks_classes (`bool`): Whether a walk asks for the classes of its image in the order of their clean logits.
    """

    num_walks: int
    ranks_classes: bool

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
