"""AugMix at its lowest severity: images are mixed with chains of operations on them, with a gradient to the images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..noise import uniform_noise
from .defence import straight_through

CHAINS = 3
LONGEST = 3  # operations of a chain
_STREAM = 900  # of the numbers that operations are drawn by


def augmix(images: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """Mixes images with three chains of one to three operations each (Hendrycks et al., ICLR 2020, arXiv 1912.02781).

    `m x + (1 - m) sum_c w_c chain_c(x)`, with weights w of Dirichlet(1, 1, 1) and m of Beta(1, 1), drawn for each
    image. Magnitudes are those of the authors' code at severity 1. Theirs are images of 8 bits throughout; here only
    posterise and equalise count grey levels. Their derivative is zero, and the identity stands for it.

    Args:
        images (`torch.Tensor`): `[N,C,H,W]` in [0,1].
        seed (`torch.Tensor`): `[1]`, int64, from which all draws follow.

    Returns:
        `torch.Tensor`: `[N,C,H,W]` in [0,1].

    Example:
        >>> mixed = augmix(images[:4], torch.tensor([7]))
        >>> mixed.shape, torch.equal(mixed, augmix(images[:4], torch.tensor([7])))
        (torch.Size([4, 3, 16, 16]), True)
    """
    of_chain = 1 + 3 * LONGEST
    numbers = uniform_noise(seed, (len(images), CHAINS + 1 + CHAINS * of_chain), stream=_STREAM)[0].to(images.dtype)
    weights, share, plans = numbers.split([CHAINS, 1, CHAINS * of_chain], dim=1)
    weights = -weights.clamp_min(1e-7).log()
    weights = weights / weights.sum(1, keepdim=True)

    # All chains of all images at once, one operation after the other
    plans = plans.reshape(-1, of_chain)
    lengths = 1 + (LONGEST * plans[:, 0]).long()
    chains = images.repeat_interleave(CHAINS, dim=0)
    for step in range(LONGEST):
        choice, level, sign = plans[:, 1 + 3 * step : 4 + 3 * step].unbind(1)
        choice = (len(OPERATIONS) * choice).long().masked_fill(lengths <= step, -1)
        chains = _operated(chains, choice, 0.1 + 0.9 * level, torch.where(sign < 0.5, -1.0, 1.0).to(level))

    mixed = (weights[:, :, None, None, None] * chains.unflatten(0, (-1, CHAINS))).sum(1)
    share = share.view(-1, 1, 1, 1)
    return share * images + (1 - share) * mixed


def _operated(images: torch.Tensor, choice: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Images after the operation of each one's choice, `[N]`; -1 is none."""
    rows, parts = [], []
    for number, operation in enumerate([None, *OPERATIONS], start=-1):
        chosen = (choice == number).nonzero().flatten()
        rows.append(chosen)
        part = images[chosen]
        parts.append(part if operation is None or not len(chosen) else operation(part, level[chosen], sign[chosen]))
    return torch.cat(parts)[torch.cat(rows).argsort()]


# ---- Operations: images `[N,C,H,W]`, levels `[N]` from 0.1 to 1 and signs `[N]` ----


def autocontrast(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """The darkest grey level of each channel becomes black, the brightest white."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp_min(1e-6), images)


def equalise(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """All grey levels of a channel become about equally frequent, as Pillow has it."""
    levels = _levels(images).flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    below = counts.cumsum(2) - counts

    # Pillow leaves channels of which this is 0 as they are.
    step = below.gather(2, levels.amax(2, keepdim=True)) // 255
    table = ((step // 2 + below) // step.clamp_min(1)).clamp(max=255)
    values = torch.where(step > 0, table.gather(2, levels), levels).view(images.shape)
    return straight_through((values / 255).to(images.dtype), images)


def posterise(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Of 8 bits the first four are left."""
    return straight_through((_levels(images) // 16 * 16 / 255).to(images.dtype), images)


def rotate(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """By up to two degrees."""
    angle = torch.deg2rad((3 * level).floor() * sign)
    height, width = images.shape[-2:]
    cos, sin, nothing = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _moved(images, [cos, -sin * height / width, nothing, sin * width / height, cos, nothing])


def solarise(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """The brightest grey levels, up to 25 of them, are inverted."""
    threshold = (256 - (25.6 * level).floor()) / 255
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 1 - images, images)


def shear_x(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Rows move by up to 0.03 of their height."""
    nothing, one = torch.zeros_like(level), torch.ones_like(level)
    share = 0.03 * level * sign * images.shape[-2] / images.shape[-1]
    return _moved(images, [one, share, share, nothing, one, nothing])


def shear_y(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Columns move by up to 0.03 of their place."""
    nothing, one = torch.zeros_like(level), torch.ones_like(level)
    share = 0.03 * level * sign * images.shape[-1] / images.shape[-2]
    return _moved(images, [one, nothing, nothing, share, one, share])


def translate_x(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """By whole pixels, up to a thirtieth of the width."""
    nothing, one = torch.zeros_like(level), torch.ones_like(level)
    return _moved(images, [one, nothing, _whole_pixels(level, sign, images.shape[-1]), nothing, one, nothing])


def translate_y(images: torch.Tensor, level: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """By whole pixels, up to a thirtieth of the height."""
    nothing, one = torch.zeros_like(level), torch.ones_like(level)
    return _moved(images, [one, nothing, nothing, nothing, one, _whole_pixels(level, sign, images.shape[-2])])


Operation = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
OPERATIONS: list[Operation] = [
    autocontrast,
    equalise,
    posterise,
    rotate,
    solarise,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
]


def _levels(images: torch.Tensor) -> torch.Tensor:
    """The grey levels of 8 bits, int64."""
    return (255 * images.detach()).round().long().clamp(0, 255)


def _whole_pixels(level: torch.Tensor, sign: torch.Tensor, side: int) -> torch.Tensor:
    """How far an image moves along a side, where the whole side is 2."""
    return (level * side / 30).floor() * sign * 2 / side


def _moved(images: torch.Tensor, matrix: list[torch.Tensor]) -> torch.Tensor:
    """Images read bilinearly at other places, by the six numbers `[N]` of an affine map; black where nothing is."""
    grid = F.affine_grid(torch.stack(matrix, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
