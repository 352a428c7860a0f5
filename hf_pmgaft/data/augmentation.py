"""Random changes of images that follow from each image's seed alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..noise import uniform_noise


def augment(images: torch.Tensor, seeds: torch.Tensor, strength: float) -> torch.Tensor:
    """Flips, shifts, scales, rotates and recolours images at random, each by its own seed and nothing else.

    Args:
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1].
        seeds (`torch.Tensor`): `[B]`, int64.
        strength (`float`): 0 leaves the images as they are; at 1 rotation reaches 15 degrees, scale 25 %, shift 10 %,
            brightness and contrast 20 %.

    Returns:
        `torch.Tensor`: `[B,3,H,W]` in [0,1].

    Example:
        >>> seeds = torch.arange(len(images))
        >>> augmented = augment(images, seeds, strength=0.5)
        >>> alone = augment(images[3:4], seeds[3:4], strength=0.5)
        >>> torch.allclose(alone, augmented[3:4], atol=1e-6)  # whatever else is in the batch
        True
    """
    if strength == 0:
        return images
    numbers = uniform_noise(seeds, (12,)).to(images.dtype)
    signed = 2 * numbers - 1

    # Where each pixel comes from: a flip, a rotation, a scale per axis, and a shift
    flip = torch.where(numbers[:, 3] < 0.5, -1.0, 1.0)
    angle = signed[:, 0] * strength * torch.pi / 12
    cos, sin = angle.cos(), angle.sin()
    scale_x = 1 + 0.25 * strength * signed[:, 1]
    scale_y = scale_x * (1 + 0.1 * strength * signed[:, 2])
    shift_x = 0.2 * strength * signed[:, 4]
    shift_y = 0.2 * strength * signed[:, 5]
    matrix = [flip * cos / scale_x, -sin / scale_x, shift_x, flip * sin / scale_y, cos / scale_y, shift_y]
    grid = F.affine_grid(torch.stack(matrix, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    # Contrast around each image's mean, and brightness
    contrast = (1 + 0.2 * strength * signed[:, 6]).view(-1, 1, 1, 1)
    brightness = (0.2 * strength * signed[:, 7]).view(-1, 1, 1, 1)
    mean = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - mean) * contrast + mean + brightness).clamp(0, 1)
