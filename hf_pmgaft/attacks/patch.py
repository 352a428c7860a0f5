"""An adversarial patch: a square of any content, anywhere in the image (Brown et al., 2017, arXiv 1712.09665)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from ..modes import frozen
from ..noise import uniform_noise
from ..registry import check_count
from .any_iterate import AllFooled, AnyIterate
from .inputs import check_inputs
from .losses import make_loss
from .pgd import ascend, default_step_size, start


def patch(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    size: int,
    places: int = 4,
    num_steps: int = 40,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Replaces a square of each image, by PGD on the margin loss over the square's pixels.

    Each image has its own, and leaves at its first misclassified point.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` in [0,1] and `[B]`.
        size (`int`): Edge of the square in pixels.
        places (`int`): Positions that are tried one after the other, drawn by each image's seed.
        num_steps (`int`): Steps at each of them, of `2.5 / num_steps`.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64; 0, 1, 2, ... if not given.

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3)) - 0.1], dim=1)
        >>> adversarial = patch(classifier, images, labels, size=2)
        >>> int((adversarial != images).any(dim=1).sum()) <= 4  # pixels
        True
    """
    images, labels, seeds = check_inputs(images, labels, seeds, several_labels=True)
    for name, value in {"size": size, "places": places, "num_steps": num_steps}.items():
        check_count(name, value)
    height, width = images.shape[-2:]
    if size > min(height, width):
        raise ValueError(f"You passed a patch of {size} pixels, which has no place in {height} x {width}. Pass less.")

    adversarial = images.detach().clone()
    rows = torch.arange(len(images), device=images.device)  # of the images that still stand
    with frozen(classifier):
        for place in range(places):
            if not len(rows):
                break
            watch = AnyIterate(classifier, images[rows], labels[rows], 1.0, "linf")
            mask = _squares(seeds[rows], height, width, size, place)
            with contextlib.suppress(AllFooled):
                adversarial[rows] = _fill(watch, mask, seeds[rows] + place, num_steps)
            fooled = watch.fooled
            adversarial[rows[fooled]] = watch.adversarial[fooled]
            rows = rows[~fooled]
    return adversarial


def _fill(watch: AnyIterate, mask: torch.Tensor, seeds: torch.Tensor, num_steps: int) -> torch.Tensor:
    """The images with the pixels of their masks where PGD took them."""

    def cover(content: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, content, watch.images)

    # PGD in a ball that holds all content
    loss_fn = make_loss(lambda x: watch(cover(x)), watch.images, watch.labels, "margin")
    point = start(watch.images, 1.0, "linf", seeds, restart=0, random_start=True, start_std=None)
    step_size = default_step_size(1.0, num_steps)
    content = ascend(loss_fn, watch.images, point, 1.0, "linf", num_steps, step_size, momentum=0.0)

    covered = cover(content)
    with torch.no_grad():
        watch(covered)
    return covered


def _squares(seeds: torch.Tensor, height: int, width: int, size: int, place: int) -> torch.Tensor:
    """Masks `[B,1,H,W]`, each with one square in a random position."""
    corner = uniform_noise(seeds, (2,), stream=900 + place)
    top = (corner[:, 0] * (height - size + 1)).long().view(-1, 1, 1, 1)
    left = (corner[:, 1] * (width - size + 1)).long().view(-1, 1, 1, 1)

    y = torch.arange(height, device=seeds.device).view(1, 1, -1, 1)
    x = torch.arange(width, device=seeds.device).view(1, 1, 1, -1)
    return (y >= top) & (y < top + size) & (x >= left) & (x < left + size)
