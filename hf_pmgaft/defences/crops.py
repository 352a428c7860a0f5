"""Random crops of images, resized and mirrored, with a gradient to the images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..noise import uniform_noise

# Of torchvision's RandomResizedCrop: shares of the image's area, and width by height.
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


def resized_crops(images: torch.Tensor, seeds: torch.Tensor, num_crops: int, size: int) -> torch.Tensor:
    """Cuts a share of 0.08 to 1 out of each image some times, and mirrors one crop in two.

    They are read bilinearly at the images' own pixels. A side longer than the image becomes its side, where
    torchvision draws again.

    Args:
        images (`torch.Tensor`): `[B,C,H,W]`.
        seeds (`torch.Tensor`): `[B]`, int64, from which an image's crops follow.
        num_crops (`int`): N.
        size (`int`): S, height and width of a crop as it comes back.

    Returns:
        `torch.Tensor`: `[B,N,C,S,S]`.

    Example:
        >>> resized_crops(images[:2], torch.tensor([0, 1]), num_crops=5, size=8).shape
        torch.Size([2, 5, 3, 8, 8])
    """
    height, width = images.shape[-2:]
    area, ratio, across, down, flip = uniform_noise(seeds, (num_crops, 5)).to(images.dtype).unbind(-1)

    # Height and width of crops, as shares of the image's
    area = AREA[0] + (AREA[1] - AREA[0]) * area
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = (low + (high - low) * ratio).exp() * height / width
    wide = (area * ratio).sqrt().clamp(max=1)
    high = (area / ratio).sqrt().clamp(max=1)

    # Where their pixels come from, in an image from -1 to 1
    mirror = torch.where(flip < 0.5, -1.0, 1.0).to(images.dtype)
    nothing = torch.zeros_like(wide)
    shift_x = (1 - wide) * (2 * across - 1)
    shift_y = (1 - high) * (2 * down - 1)
    matrix = torch.stack([mirror * wide, nothing, shift_x, nothing, high, shift_y], dim=-1).view(-1, 2, 3)

    # Crops of an image stand on each other, so that the image is not copied for each.
    shape = [len(matrix), images.shape[1], size, size]
    grid = F.affine_grid(matrix, shape, align_corners=False).view(len(images), num_crops * size, size, 2)
    crops = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return crops.unflatten(2, (num_crops, size)).transpose(1, 2)
