"""Attacks on segmentation: walks on losses of pixels, which are kept where the fewest pixels are right.

A walk goes on to its end, unless no pixel is right any more: there is no first misclassified point to stop at.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from ..modes import at_least_float32, frozen
from .ball import inside
from .dense_checks import check_dense_logits, check_mask_classes, check_masks
from .dense_losses import controlling_loss, dense_loss
from .inputs import check_images, check_not_nan, check_seeds
from .losses import gradient_of
from .walk import State, Walk

Advance = Callable[[State, torch.Tensor, torch.Tensor], torch.Tensor]


class Segments(Protocol):
    """What is attacked: images in [0,1] -> logits of every pixel, and classes by them."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images `[B,3,H,W]` in [0,1] -> logits `[B,K,H,W]`."""

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits `[B,K,H,W]` -> classes `[B,H,W]`."""


@dataclass(frozen=True)
class ByLargestLogit:
    """Segments by any function, each pixel by its largest logit.

    Args:
        function (`Callable`): Images in [0,1] `[B,3,H,W]` -> logits `[B,K,H,W]`.

    Example:
        >>> segmenter = ByLargestLogit(lambda images: images)
        >>> segmenter.predict(segmenter(torch.tensor([[[[0.1]], [[0.5]], [[0.3]]]]))).tolist()
        [[[1]]]
    """

    function: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(images)

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(1)


class FewestRight:
    """Keeps per image the point at which the fewest labelled pixels were right; the latest among equals.

    Args:
        points (`torch.Tensor`): `[B,C,H,W]`: what is kept where there is nothing yet.

    Attributes:
        points (`torch.Tensor`): `[B,C,H,W]`.
        counts (`torch.Tensor`): `[B]`, int64: how many pixels were right there; the largest integer where nothing is
            kept yet.

    Example:
        >>> fewest = FewestRight(torch.zeros(2, 1, 1, 1))
        >>> fewest.keep(torch.tensor([1]), torch.ones(1, 1, 1, 1), torch.tensor([5]))
        >>> fewest.points.flatten().tolist(), fewest.counts[1].item()
        ([0.0, 1.0], 5)
    """

    def __init__(self, points: torch.Tensor):
        self.points = points.clone()
        self.counts = torch.full((len(points),), torch.iinfo(torch.int64).max, device=points.device)

    def keep(self, rows: torch.Tensor, points: torch.Tensor, counts: torch.Tensor) -> None:
        """Keeps what is no worse than before of points `[R,C,H,W]` of the images in some rows, `[R]`."""
        is_fewest = counts <= self.counts[rows]
        rows = rows[is_fewest]
        self.points[rows] = points[is_fewest]
        self.counts[rows] = counts[is_fewest]


class DenseBatch:
    """A batch of images under attack: walks on them, and the points that are kept.

    An image leaves once none of its labelled pixels is right at a point that is kept. One without a labelled pixel is
    never attacked. What becomes of an image depends on no other one.

    Args:
        segmenter (`Segments`): Is not trained, and in eval mode.
        images (`torch.Tensor`): `[B,C,H,W]` in [0,1].
        masks (`torch.Tensor`): `[B,H,W]`, int64: class indices, below 0 where ignored.
        eps (`float`), norm (`str`): The balls; points outside them are not kept.
        any_iterate (`bool`): Whether every point of a walk may be kept, and the image itself; else its last one.

    Attributes:
        kept (`FewestRight`): The images as they are attacked so far.

    Raises:
        FloatingPointError: if logits are NaN or infinite.
        ValueError: for masks that do not fit the images or the classes, and what are no logits of pixels.

    Example:
        >>> batch = DenseBatch(
        ...     ByLargestLogit(lambda images: images), torch.tensor([[[[0.6]], [[0.5]]]]), torch.tensor([[[0]]]),
        ...     eps=0.1, norm="linf", any_iterate=True,
        ... )
        >>> batch.rows().tolist(), batch.kept.counts.tolist()
        ([0], [1])
    """

    def __init__(
        self,
        segmenter: Segments,
        images: torch.Tensor,
        masks: torch.Tensor,
        eps: float,
        norm: str,
        any_iterate: bool,
    ):
        self.segmenter = segmenter
        self.images = at_least_float32(check_images(images).detach())
        self.masks = check_masks(masks, images)
        self.eps = eps
        self.norm = norm
        self.any_iterate = any_iterate
        self.kept = FewestRight(self.images)
        self._is_labelled = (self.masks >= 0).flatten(1).any(1)

        # The images as they are
        rows = torch.arange(len(images), device=images.device)
        with torch.no_grad():
            logits = self._logits(self.images)
        check_mask_classes(self.masks, logits.shape[1])
        if any_iterate:
            self.kept.keep(rows, self.images, self._count(logits, rows))

    def rows(self) -> torch.Tensor:
        """The numbers of the images that a walk may change something about."""
        return (self._is_labelled & (self.kept.counts > 0)).nonzero().squeeze(1)

    def run(self, rows: torch.Tensor, state: State, advance: Advance, loss: str, num_steps: int) -> torch.Tensor:
        """Takes a walk on each of some images to its end, all in step.

        Args:
            rows (`torch.Tensor`): `[R]`, the numbers of the images.
            state (`dict[str, torch.Tensor]`): Of the walks at their first points, a row each; see [`Walk`].
            advance (`Callable`): Takes the state to the next points. The loss that it is told is that by which
                progress is seen, not the one whose gradient it is told.
            loss (`str`): One of `DENSE_LOSSES`.
            num_steps (`int`): Of a walk.

        Returns:
            `torch.Tensor`: `[R,C,H,W]`: the point of each walk at which the fewest pixels were right, in the ball or
            not.
        """
        fewest = FewestRight(state["points"])
        walking = torch.arange(len(rows), device=rows.device)
        is_last = False
        for done in itertools.count():
            points = state["points"]
            masks = self.masks[rows[walking]]
            logits, gradient = self._look(points, masks, None if is_last else loss, min(done / num_steps, 1.0))
            counts = self._count(logits, rows[walking])
            fewest.keep(walking, points, counts)
            self._keep(rows[walking], points, counts, is_last)
            if is_last:
                break

            # The next points, of those that are not done
            is_last = bool(advance(state, dense_loss(controlling_loss(loss), logits, masks), gradient).all())
            stays = self.kept.counts[rows[walking]] > 0
            if not stays.all():
                state = {name: values[stays] for name, values in state.items()}
                walking = walking[stays]
            if not len(walking):
                break
        return fewest.points

    def _look(
        self, points: torch.Tensor, masks: torch.Tensor, loss: str | None, share: float
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The logits of points, and the gradient of a loss there, if one is asked for."""
        if loss is None:
            with torch.no_grad():
                return self._logits(points), None
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            logits = self._logits(points)
            total = dense_loss(loss, logits, masks, share).sum()
        return logits.detach(), gradient_of(total, points)

    def _keep(self, rows: torch.Tensor, points: torch.Tensor, counts: torch.Tensor, is_last: bool) -> None:
        if not (self.any_iterate or is_last):
            return
        allowed = inside(self.images[rows], points, self.eps, self.norm)
        self.kept.keep(rows[allowed], points[allowed], counts[allowed])

    def _logits(self, points: torch.Tensor) -> torch.Tensor:
        logits = at_least_float32(check_dense_logits(self.segmenter(points), points))
        check_not_nan(logits)
        return logits

    def _count(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """How many labelled pixels are right, `[R]`."""
        return (self.segmenter.predict(logits) == self.masks[rows]).flatten(1).sum(1)


def walk_dense(
    walk: Walk,
    segmenter: Segments,
    images: torch.Tensor,
    masks: torch.Tensor,
    seeds: torch.Tensor | None,
    *,
    eps: float,
    norm: str,
    loss: str,
    num_steps: int,
    any_iterate: bool,
) -> torch.Tensor:
    """Attacks one batch by an attack that is walks, on a loss of pixels.

    Args:
        walk (`Walk`): The attack, whose own loss is not asked.
        segmenter (`Segments`), images (`torch.Tensor`), masks (`torch.Tensor`): See [`DenseBatch`].
        seeds (`torch.Tensor`, *optional*): `[B]`, int64; 0, 1, 2, ... if not given.
        eps (`float`), norm (`str`), any_iterate (`bool`): See [`DenseBatch`].
        loss (`str`): One of `DENSE_LOSSES`.
        num_steps (`int`): Of a walk.

    Returns:
        `torch.Tensor`: `[B,C,H,W]`, float32: of all points that may be kept the one at which the fewest labelled
        pixels are right.

    Example:
        >>> from hf_pmgaft.attacks.pgd import pgd_walk
        >>> images, masks = torch.tensor([[[[0.6]], [[0.5]]]]), torch.tensor([[[0]]])
        >>> options = dict(eps=0.1, norm="linf", num_steps=5)
        >>> adversarial = walk_dense(
        ...     pgd_walk(**options), ByLargestLogit(lambda images: images), images, masks, None, loss="masked_ce",
        ...     any_iterate=True, **options,
        ... )
        >>> adversarial.argmax(1).tolist()
        [[[1]]]
    """
    seeds = check_seeds(seeds, images)
    with frozen(segmenter):
        batch = DenseBatch(segmenter, images, masks, eps, norm, any_iterate)
        for number in range(walk.num_walks):
            rows = batch.rows()
            if not len(rows):
                break
            numbers = torch.full_like(rows, number)
            state = walk.begin(batch.images[rows], batch.masks[rows], seeds[rows], numbers, None)
            batch.run(rows, state, walk.advance, loss, num_steps)
    return batch.kept.points
