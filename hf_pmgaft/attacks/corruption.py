"""Common corruptions that are a line each, with the severities of ImageNet-C (Hendrycks and Dietterich, 1903.12261).

ImageNet-C's own are defined on 224 x 224 pixels; here they work on images of any size, at the size at which the set is
attacked. Brightness adds to all channels instead of the value of HSV.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..noise import normal_noise, uniform_noise
from ..registry import check_choice
from .inputs import check_images, check_seeds


def corruption(
    classifier: Any, images: torch.Tensor, labels: Any, *, kind: str, severity: int, seeds: torch.Tensor | None = None
) -> torch.Tensor:
    """Corrupts images in [0,1], `[B,3,H,W]`; no attacker is at work.

    Args:
        classifier, labels: Not looked at.
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1].
        kind (`str`): One of `CORRUPTIONS`.
        severity (`int`): 1 to 5.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64; 0, 1, 2, ... if not given.

    Example:
        >>> images = torch.full((1, 3, 8, 8), 0.5)
        >>> corruption(None, images, None, kind="brightness", severity=2).unique().tolist()
        [0.699999988079071]
    """
    images = check_images(images)
    seeds = check_seeds(seeds, images)
    check_choice("kind", kind, CORRUPTIONS)
    check_choice("severity", severity, SEVERITIES)

    corrupt, strengths = CORRUPTIONS[kind]
    corrupted = corrupt(images.detach().float(), strengths[severity - 1], seeds)
    return corrupted.clamp(0, 1).to(images.dtype)


def _gaussian(x: torch.Tensor, std: float, seeds: torch.Tensor) -> torch.Tensor:
    return x + std * normal_noise(seeds, x.shape[1:])


def _speckle(x: torch.Tensor, std: float, seeds: torch.Tensor) -> torch.Tensor:
    return x + std * x * normal_noise(seeds, x.shape[1:])


def _impulse(x: torch.Tensor, share: float, seeds: torch.Tensor) -> torch.Tensor:
    u = uniform_noise(seeds, x.shape[1:])
    return torch.where(u < share, (u < share / 2).to(x.dtype), x)


def _brightness(x: torch.Tensor, change: float, seeds: torch.Tensor) -> torch.Tensor:
    return x + change


def _contrast(x: torch.Tensor, factor: float, seeds: torch.Tensor) -> torch.Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def _pixelate(x: torch.Tensor, factor: float, seeds: torch.Tensor) -> torch.Tensor:
    small = F.interpolate(x, scale_factor=factor, mode="area", recompute_scale_factor=True)
    return F.interpolate(small, size=x.shape[-2:], mode="nearest-exact")


def _jpeg(x: torch.Tensor, quality: int, seeds: torch.Tensor) -> torch.Tensor:
    pixels = []
    for image in (x.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=quality)
        pixels.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(pixels)).to(x.device).permute(0, 3, 1, 2).float() / 255


SEVERITIES = (1, 2, 3, 4, 5)
# Name -> function of images, strength and seeds, and the strengths of the five severities.
CORRUPTIONS: dict[str, tuple[Callable[[torch.Tensor, Any, torch.Tensor], torch.Tensor], tuple]] = {
    "gaussian_noise": (_gaussian, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "speckle_noise": (_speckle, (0.15, 0.2, 0.35, 0.45, 0.6)),
    "impulse_noise": (_impulse, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
}
