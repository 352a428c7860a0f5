"""The ball that an attack may not leave: radii, projection, distance, and points in it."""

from __future__ import annotations

import re

import torch

from ..modes import at_least_float32
from ..noise import normal_noise, uniform_noise

NORMS = ("l2", "linf")


# A number of plain digits, or a fraction of two
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?", re.IGNORECASE)
# A walk of two steps has the longest default one, in units of the radius.
_LONGEST_DEFAULT_STEP = 1.25


def parse_radius(value: str | float, norm: str = "linf") -> float:
    """Reads a radius in the scale of images in [0,1], from a number or a fraction such as `"4/255"`.

    Raises:
        ValueError: if it is no number, negative, or in L-inf 1 or more.

    Example:
        >>> parse_radius("51/255")
        0.2
    """
    radius = _parse_number(value, f"You passed the radius {value!r}, which is no number. Write it as 4/255 or 0.0157.")
    if not 0 <= radius < float("inf"):
        raise ValueError(f"You passed the radius {value}, but a ball has a radius of 0 or more. Pass such as 4/255.")
    if norm == "linf" and radius >= 1:
        raise ValueError(
            f"You passed the radius {value}, but pixels go from 0 to 1, so it would allow any image. {_grey(value)}"
        )
    return radius


def parse_step_size(value: str | float, eps: float, norm: str = "linf") -> float:
    """Reads the length of a step: as a radius, or in units of the radius `eps`, such as `"1eps"` or `"2/3 eps"`.

    The latter is a number or a fraction, and `eps` after it.

    Raises:
        ValueError: if it is no such length, negative, or in L-inf 1 or more.

    Example:
        >>> parse_step_size("1/4 eps", eps=0.5), parse_step_size("1/4", eps=0.5)
        (0.125, 0.25)
    """
    no_length = f"You passed the step size {value!r}, which is no length. Write 1/255, or of the radius 0.25eps."
    is_relative = isinstance(value, str) and value.rstrip().endswith("eps")
    length = _parse_number(value.rstrip().removesuffix("eps") if is_relative else value, no_length)
    if not 0 <= length < float("inf"):
        raise ValueError(
            f"You passed the step size {value}, but a length is 0 or more. Pass such as 1/255 or 0.25eps."
        )
    if is_relative:
        return length * eps
    if norm == "linf" and length >= 1 and length > _LONGEST_DEFAULT_STEP * eps:
        raise ValueError(
            f"You passed the step size {value}, but pixels go from 0 to 1, so one step would leave any image. "
            f"{_grey(value)}"
        )
    return length


def parse_factor(value: str | float) -> float:
    """Reads a number above 0 that is no length, such as what a gradient is multiplied by.

    Example:
        >>> parse_factor("1/20")
        0.05
    """
    factor = _parse_number(value, f"You passed the factor {value!r}, which is no number. Write it as 0.05.")
    if not 0 < factor < float("inf"):
        raise ValueError(f"You passed the factor {value}, but it must be above 0. Pass such as 0.05.")
    return factor


def _parse_number(value: str | float, message: str) -> float:
    """A number, or what a fraction comes to; raises `ValueError` with the message for anything else."""
    fraction = None if isinstance(value, bool) else _FRACTION.fullmatch(str(value))
    if fraction is None or float(fraction[2] or 1) == 0:
        raise ValueError(message)
    return float(fraction[1]) / float(fraction[2] or 1)


def _grey(value: str | float) -> str:
    """What to write instead of a length that was meant in grey levels."""
    if "/" in str(value):
        return "Write such as 4/255."
    return f"If you meant {value} of 255 grey levels, write {value}/255."


def project(images: torch.Tensor, adversarial: torch.Tensor, eps: float, norm: str) -> torch.Tensor:
    """Moves `adversarial` to the nearest point of the ball around `images`, and then of [0,1].

    Example:
        >>> images = torch.full((1, 1, 1, 2), 0.5)
        >>> project(images, torch.tensor([[[[0.25, 0.75]]]]), eps=0.125, norm="linf").flatten().tolist()
        [0.375, 0.625]
    """
    delta = adversarial - images
    if norm == "linf":
        delta = delta.clamp(-eps, eps)
    else:
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = torch.where(length > eps, delta * (eps / length), delta)
    return (images + delta).clamp(0, 1)


def distance(images: torch.Tensor, points: torch.Tensor, norm: str) -> torch.Tensor:
    """Measures each perturbation, `[B]`, by norm: `"linf"`, `"l2"` or `"l1"`.

    Example:
        >>> distance(torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, 4.0]]]]), "l2").tolist()
        [5.0]
    """
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm((points - images).flatten(1), order, dim=1)


def inside(images: torch.Tensor, points: torch.Tensor, eps: float, norm: str) -> torch.Tensor:
    """Tells which points are valid images inside their balls, up to round-off, `[B]`.

    Example:
        >>> images = torch.full((2, 1, 1, 1), 0.5)
        >>> inside(images, torch.tensor([0.6, 0.7]).view(2, 1, 1, 1), eps=0.1, norm="linf").tolist()
        [True, False]
    """
    flat = points.flatten(1)
    valid = (flat.amin(1) >= -1e-6) & (flat.amax(1) <= 1 + 1e-6)
    return valid & (distance(images, points, norm) <= eps * (1 + 1e-5) + 1e-7)


def round_inside(images: torch.Tensor, walk: torch.Tensor) -> torch.Tensor:
    """Rounds `walk` to the images' dtype, each pixel towards the image, so that it stays in the ball.

    Example:
        >>> images = torch.full((1, 1, 1, 1), 0.5, dtype=torch.bfloat16)
        >>> round_inside(images, torch.full((1, 1, 1, 1), 0.5039)).item()  # the nearest would be 0.50390625
        0.5
    """
    rounded = walk.to(images.dtype)
    if rounded.dtype == walk.dtype:
        return rounded

    centre = at_least_float32(images)
    outward = (at_least_float32(rounded) - centre).abs() > (walk - centre).abs()
    return torch.where(outward, torch.nextafter(rounded, images), rounded)


def round_levels_inside(images: torch.Tensor, points: torch.Tensor, eps: float, norm: str) -> torch.Tensor:
    """Rounds points to the levels of 8 bits so that none leaves the ball around its image.

    Each pixel goes to its nearest level. Where that leads out of the ball, those that were rounded outwards most go a
    level back towards the image, as few as it takes. Of an image that is on no levels itself, a ball of less than half
    a level may hold none; then the point is one of the nearest.

    Args:
        images (`torch.Tensor`): `[B,C,H,W]` in [0,1].
        points (`torch.Tensor`): `[B,C,H,W]` in [0,1], inside the balls.
        eps (`float`), norm (`str`): `"l1"`, `"l2"` or `"linf"`.

    Example:
        >>> images = torch.zeros(1, 1, 1, 3)
        >>> points = torch.tensor([[[[1.6, 0.7, 0.2]]]]) / 255  # of length 1.76, rounded 2.24
        >>> (255 * round_levels_inside(images, points, eps=1.8 / 255, norm="l2")).round().flatten().tolist()
        [1.0, 1.0, 0.0]
    """
    if norm == "linf":
        levels = (points * 255).round()
        levels = levels.clamp((images * 255 - 255 * eps - 1e-3).ceil(), (images * 255 + 255 * eps + 1e-3).floor())
        return (levels / 255).clamp(0, 1)

    power = {"l1": 1, "l2": 2}[norm]
    centre = (images.double() * 255).flatten(1)
    centre = centre.round().where((centre - centre.round()).abs() < 1e-3, centre)  # of which float32 is a little off
    walked = (points.double() * 255).flatten(1) - centre
    change = (points.double() * 255).flatten(1).round() - centre
    too_much = (change.abs() ** power).sum(1, keepdim=True) - (255 * eps) ** power

    # By how much each was rounded outwards, and what a level less would take off
    outwards, order = (change.abs() - walked.abs()).sort(dim=1, descending=True, stable=True)
    ordered = change.gather(1, order)
    back = ordered - ordered.sign()
    saved = (ordered.abs() ** power - back.abs() ** power).where(outwards > 0, 0.0).clamp_min(0)
    saved_before = saved.cumsum(1) - saved
    ordered = torch.where((saved > 0) & (saved_before < too_much), back, ordered)
    change = torch.empty_like(change).scatter(1, order, ordered)
    return ((centre + change) / 255).clamp(0, 1).view_as(images).to(images.dtype)


def uniform_point(
    images: torch.Tensor, eps: float, norm: str, seeds: torch.Tensor, restart: int | torch.Tensor
) -> torch.Tensor:
    """Draws a point uniformly from the ball around each image, clipped to [0,1].

    Example:
        >>> images = torch.full((2, 3, 8, 8), 0.5)
        >>> points = uniform_point(images, eps=0.5, norm="l2", seeds=torch.tensor([0, 1]), restart=0)
        >>> bool((distance(images, points, "l2") <= 0.5).all())
        True
    """
    images = at_least_float32(images.detach())
    shape = images.shape[1:]
    if norm == "linf":
        delta = (2 * uniform_noise(seeds, shape, restart) - 1) * eps
    else:
        # Of N dimensions, the share u^(1/N) of the radius spreads points evenly over the volume.
        direction = normal_noise(seeds, shape, restart)
        direction = direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        fraction = uniform_noise(seeds, (1, 1, 1), restart + 500) ** (1 / shape.numel())
        delta = direction * fraction * eps

    return (images + delta.to(images.dtype)).clamp(0, 1)


def normal_point(
    images: torch.Tensor, eps: float, norm: str, seeds: torch.Tensor, restart: int | torch.Tensor, std: float
) -> torch.Tensor:
    """Adds normal noise of a standard deviation to each image, and moves it into the ball and [0,1]."""
    images = at_least_float32(images.detach())
    noise = normal_noise(seeds, images.shape[1:], restart).to(images.dtype)
    return project(images, images + std * noise, eps, norm)
