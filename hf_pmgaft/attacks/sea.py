"""SEA, the segmentation ensemble attack (Croce, Singh and Hein, ECCV 2024, arXiv 2306.12941)."""

from __future__ import annotations

import itertools

import torch

from ..modes import frozen
from ..registry import check_choice, check_count
from .apgd_steps import DenseSteps
from .ball import parse_radius, project
from .dense import DenseBatch, Segments
from .inputs import check_seeds

# The losses of the ensemble, and the radii of the phases of each walk.
SEA_LOSSES = ("masked_ce", "segpgd", "js", "masked_spherical")
RADII = (2.0, 1.5, 1.0)


def sea(
    segmenter: Segments,
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 300,
    restarts: int = 1,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attacks the pixels of images by Auto-PGD on each of four losses, and keeps per image where the fewest are right.

    Each walk has three phases, of 30, 30 and 40 % of the steps, in balls of 2, 1.5 and 1 times the radius. The first
    begins at random, the others at the point of the phase before at which the fewest labelled pixels were right,
    projected. Steps become shorter where cross-entropy makes no progress, on `masked_spherical` where this loss makes
    none. Every point of the smallest ball counts, and the image itself. Pixels that are ignored count nowhere.

    Args:
        segmenter (`Segments`): Images in [0,1] -> logits of pixels, with a `predict`; see [`Segmenter`].
        images (`torch.Tensor`): `[B,C,H,W]` in [0,1].
        masks (`torch.Tensor`): `[B,H,W]`, int64: class indices, below 0 where ignored.
        eps (`float` or `str`), norm (`str`): The ball; `"linf"`.
        num_steps (`int`): Steps on each loss, 4 or more. Authors: 300.
        restarts (`int`): Walks on each loss.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64; 0, 1, 2, ... if not given.

    Returns:
        `torch.Tensor`: `[B,C,H,W]`, float32.

    Raises:
        ValueError: for another norm, fewer steps, and what [`DenseBatch`] refuses.

    Example:
        >>> from hf_pmgaft.attacks.dense import ByLargestLogit
        >>> images, masks = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 4, 4, dtype=torch.long)
        >>> segmenter = ByLargestLogit(lambda images: images + torch.tensor([0.01, 0.0, 0.0]).view(1, 3, 1, 1))
        >>> adversarial = sea(segmenter, images, masks, eps="4/255", num_steps=10)
        >>> (segmenter.predict(segmenter(adversarial)) == masks).sum().item()
        0
    """
    check_choice("norm", norm, ("linf",))
    check_count("restarts", restarts)
    check_phases(num_steps)
    radius = parse_radius(eps)
    seeds = check_seeds(seeds, images)
    with frozen(segmenter):
        batch = DenseBatch(segmenter, images, masks, radius, norm, any_iterate=True)
        for number, (_, loss) in enumerate(itertools.product(range(restarts), SEA_LOSSES)):
            walk_in_phases(batch, loss, num_steps, seeds, number)
    return batch.kept.points


def walk_in_phases(
    batch: DenseBatch, loss: str, num_steps: int, seeds: torch.Tensor, number: int, random_start: bool = True
) -> None:
    """Walks on one loss in balls that become smaller, over all images of a batch that are not done.

    Args:
        batch (`DenseBatch`): The images; it keeps what is found.
        loss (`str`): One of `DENSE_LOSSES`.
        num_steps (`int`): Of all phases.
        seeds (`torch.Tensor`): `[B]`, int64.
        number (`int`): Which of the walks of an image it is; they begin at different points.
        random_start (`bool`): Begin at the image otherwise.
    """
    rows = batch.rows()
    start = None if random_start else batch.images[rows]
    for factor, length in zip(RADII, phases(num_steps), strict=True):
        if not len(rows):
            return
        images, radius = batch.images[rows], factor * batch.eps
        steps = DenseSteps(radius, batch.norm, length)
        if start is None:
            state = steps.begin(images, seeds[rows], torch.full_like(rows, number))
        else:
            state = steps.begin_at(images, project(images, start, radius, batch.norm))
        start = batch.run(rows, state, steps.advance, loss, length)

        # Of images that are done in the meantime no further point is needed.
        stays = torch.isin(rows, batch.rows())
        rows, start = rows[stays], start[stays]


def phases(num_steps: int) -> tuple[int, int, int]:
    """The steps of each phase.

    Example:
        >>> phases(300)
        (90, 90, 120)
    """
    third = int(0.3 * num_steps)
    return third, third, num_steps - 2 * third


def check_phases(num_steps: int) -> None:
    """Raises `ValueError` for steps that are too few for three phases.

    Example:
        >>> check_phases(3)
        Traceback (most recent call last):
        ValueError: You passed num_steps=3, but SEA walks in three phases. Pass 4 or more.
    """
    if check_count("num_steps", num_steps) < 4:
        raise ValueError(f"You passed num_steps={num_steps}, but SEA walks in three phases. Pass 4 or more.")
