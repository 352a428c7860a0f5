"""Batched augmentation of emoji drawings: premultiplied RGBA frames in, RGB pixels in [0, 1] out."""

import math

import torch
import torch.nn.functional as F

# YIQ: brightness and two colour axes; a hue shift is a rotation of the latter two.
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
FROM_YIQ = torch.linalg.inv(TO_YIQ)


def uniform(count: int, low: float, high: float, *shape: int) -> torch.Tensor:
    """Numbers drawn uniformly, `[count, *shape]`, or `[count, 1, 1, 1]`."""
    return torch.empty(count, *(shape or (1, 1, 1))).uniform_(low, high)


def chance(count: int, probability: float) -> torch.Tensor:
    """`[count, 1, 1, 1]`, 1 with the given probability, else 0."""
    return (torch.rand(count, 1, 1, 1) < probability).float()


def smooth_field(count: int, channels: int, cells: int, size: int) -> torch.Tensor:
    """Low-frequency noise of unit scale, `[count, channels, size, size]`."""
    noise = torch.randn(count, channels, cells, cells)
    return F.interpolate(noise, size=(size, size), mode="bicubic", align_corners=True)


def on_some(function, images: torch.Tensor, probability: float, *others: torch.Tensor) -> torch.Tensor:
    """Apply `function(images, *others)` to a random part of the batch."""
    rows = (torch.rand(len(images)) < probability).nonzero()[:, 0]
    if not len(rows):
        return images
    return images.index_copy(0, rows, function(images[rows], *(other[rows] for other in others)))


def recolour_ink(frames: torch.Tensor, ink: torch.Tensor) -> torch.Tensor:
    """Draw single-coloured drawings (`ink` `[B]` is true) in a random colour."""
    coloured = frames[:, 3:] * uniform(len(frames), 0, 1, 3, 1, 1) * chance(len(frames), 0.7)
    rgb = torch.where(ink[:, None, None, None], coloured, frames[:, :3])
    return torch.cat([rgb, frames[:, 3:]], 1)


def mix_styles(frames: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Blend two drawings of the same emoji, everywhere alike or region by region."""
    count, _, size, _ = frames.shape
    regions = (smooth_field(count, 1, 4, size) * 4).sigmoid()
    return torch.lerp(frames, others, torch.where(chance(count, 0.5) > 0, regions, uniform(count, 0.3, 0.7)))


def outline(frames: torch.Tensor) -> torch.Tensor:
    """Put a one-pixel outline of a random, mostly dark colour around the drawing."""
    alpha = frames[:, 3:]
    rim = F.max_pool2d(alpha, 3, 1, 1) - alpha
    return frames + torch.cat([rim * uniform(len(frames), 0, 0.5, 3, 1, 1), rim], 1)


def warp(frames: torch.Tensor, flip: torch.Tensor, size: int, strength: float) -> torch.Tensor:
    """Random affine map and elastic displacement, resampled to `size`; `flip` `[B]` allows mirroring."""
    count = len(frames)

    # The affine map
    angle = uniform(count, -0.26, 0.26, 1) * strength
    scale = 1 / uniform(count, 1 - 0.24 * strength, 1 + 0.2 * strength, 1)
    stretch = uniform(count, -0.12, 0.12, 1) * strength
    shear = uniform(count, -0.1, 0.1, 1) * strength
    mirror = 1 - 2 * ((torch.rand(count, 1) < 0.5) & flip[:, None]).float()
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = uniform(count, -0.14, 0.14, 2) * strength
    right = [cos * (1 + stretch) * mirror, -sin + shear, shift[:, :1]]
    down = [(sin + shear) * mirror, cos * (1 - stretch), shift[:, 1:]]
    matrix = torch.cat(right + down, 1).view(count, 2, 3)
    grid = F.affine_grid(matrix, (count, 1, size, size), align_corners=False)

    # The elastic displacement
    elastic = smooth_field(count, 2, 5, size).permute(0, 2, 3, 1) * 0.035 * strength
    return F.grid_sample(frames, grid + elastic * chance(count, 0.6), align_corners=False)


def shade(frames: torch.Tensor) -> torch.Tensor:
    """Multiply the colours by a smooth field: gradients and shadows that other styles draw."""
    rgb = frames[:, :3] * (1 + 0.15 * smooth_field(len(frames), 1, 3, frames.shape[-1]))
    return torch.cat([torch.minimum(rgb.clamp(min=0), frames[:, 3:]), frames[:, 3:]], 1)


def composite(frames: torch.Tensor) -> torch.Tensor:
    """Flatten on white (40 %) or on a random colour."""
    white = chance(len(frames), 0.4)
    background = white + (1 - white) * uniform(len(frames), 0, 1, 3, 1, 1)
    return frames[:, :3] + background * (1 - frames[:, 3:])


def jitter(images: torch.Tensor, strength: float) -> torch.Tensor:
    """Change hue, saturation, contrast and brightness; now and then mix the channels or make an image grey."""
    count = len(images)

    # Colours
    angle = uniform(count, -1, 1, 1) * 0.1 * math.pi * strength
    saturation = (1 + uniform(count, -0.5, 0.4, 1) * strength) * (1 - chance(count, 0.07)[:, :, 0, 0])
    cos, sin = angle.cos() * saturation, angle.sin() * saturation
    zero, one = torch.zeros(count, 1), torch.ones(count, 1)
    rotation = torch.cat([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(count, 3, 3)
    matrix = FROM_YIQ @ rotation @ TO_YIQ
    matrix = matrix + torch.randn(count, 3, 3) * 0.12 * strength * chance(count, 0.3)[:, 0]

    # Light
    contrast = 1 + uniform(count, -0.3, 0.3) * strength
    brightness = uniform(count, -0.12, 0.12) * strength
    images = torch.einsum("bij,bjhw->bihw", matrix, images)
    return (images - 0.5) * contrast + 0.5 + brightness


def blur(images: torch.Tensor) -> torch.Tensor:
    """Blur: the mean of the neighbours."""
    return F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)


def thin(images: torch.Tensor) -> torch.Tensor:
    """Thin dark strokes: the lightest of the neighbours."""
    return F.max_pool2d(images, 3, 1, 1)


def thicken(images: torch.Tensor) -> torch.Tensor:
    """Thicken dark strokes: the darkest of the neighbours."""
    return -thin(-images)


def partly(function):
    """The function whose result is mixed with the images, by a share of 0.2 to 0.8."""
    return lambda images: torch.lerp(images, function(images), uniform(len(images), 0.2, 0.8))


def augment(frames, others, ink, other_ink, flip, size: int, strength: float = 1.0) -> torch.Tensor:
    """Augment drawings: premultiplied RGBA in [0, 1] `[B, 4, H, W]` -> RGB `[B, 3, size, size]`.

    `others` are further drawings of the same emoji, to mix in.
    """
    frames = on_some(mix_styles, recolour_ink(frames, ink), 0.2 * strength, recolour_ink(others, other_ink))
    frames = warp(on_some(outline, frames, 0.15 * strength), flip, size, strength)
    images = composite(on_some(shade, frames, 0.4 * strength))
    for stroke in (blur, thin, thicken):
        images = on_some(partly(stroke), images, 0.1 * strength)
    return jitter(images, strength).clamp(0, 1)
