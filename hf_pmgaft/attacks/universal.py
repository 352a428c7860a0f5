"""One perturbation for all images (Moosavi-Dezfooli et al., CVPR 2017, arXiv 1610.08401), read from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from ..files import save_tensors
from ..fingerprints import digest
from ..modes import at_least_float32
from ..registry import check_choice
from .ball import parse_radius, round_inside
from .inputs import check_images, check_seeds

_KEYS = ("delta", "perturbation")  # under which files hold it, if they hold more


@dataclass(frozen=True)
class UniversalPerturbation:
    """A perturbation for all images, with what is known of how it was made.

    Args:
        delta (`torch.Tensor`): `[3,H,W]`, in the scale of images in [0,1].
        eps (`float` or `str`, *optional*): The radius in L-inf that it was made for.
        protocol (`dict`): How it was made.
        rows (`torch.Tensor`, *optional*): `[N]`, int64: the rows of its set that it was made on.

    Example:
        >>> UniversalPerturbation(torch.full((3, 4, 4), 0.1), eps=0.1).save("noise.safetensors")
        >>> noise = UniversalPerturbation.load("noise.safetensors")
        >>> noise.at((8, 8), eps=0.05).amax().item()
        0.05000000074505806
    """

    delta: torch.Tensor
    eps: float | str | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    rows: torch.Tensor | None = None

    @classmethod
    def load(cls, file: str | os.PathLike) -> UniversalPerturbation:
        """Reads what [`UniversalPerturbation.save`] wrote, or a safetensors file that holds a perturbation alone.

        Raises:
            ValueError: for a file that is not there, is no safetensors file, or holds no image.
        """
        try:
            with safe_open(file, "pt") as tensors:
                metadata = tensors.metadata() or {}
                names = list(tensors.keys())
                key = _key_of(names, file)
                delta = tensors.get_tensor(key)
                rows = tensors.get_tensor("rows") if "rows" in names else None
        except (OSError, SafetensorError) as error:
            raise ValueError(_unreadable(file, error)) from error

        if delta.ndim == 4 and len(delta) == 1:
            delta = delta[0]
        if delta.ndim != 3 or not delta.is_floating_point() or not torch.isfinite(delta).all():
            raise ValueError(
                f"{file} holds {key!r}, {delta.dtype} of shape {list(delta.shape)}, which is no perturbation. Pass "
                "one of finite floating point numbers [C,H,W]."
            )
        protocol = json.loads(metadata.get("protocol", "{}"))
        return cls(at_least_float32(delta), protocol.get("eps"), protocol, rows)

    def save(self, file: str | os.PathLike) -> None:
        """Writes the perturbation as safetensors, its protocol in the metadata."""
        tensors = {"delta": self.delta.contiguous().cpu()}
        if self.rows is not None:
            tensors["rows"] = self.rows
        protocol = {**self.protocol, "eps": self.eps}
        save_tensors(tensors, file, {"format": "pt", "protocol": json.dumps(protocol)})

    @property
    def digest(self) -> str:
        """Tells perturbations apart, in eight hexadecimal digits."""
        return digest([self.delta.cpu().numpy().tobytes()])[:8]

    def at(self, size: tuple[int, int], eps: float, made_for: float | None = None) -> torch.Tensor:
        """The perturbation `[C,H,W]` for images of a size, in a ball of L-inf.

        It is scaled by `eps / made_for`, resized (bilinear, corners not aligned) and then clipped.

        Args:
            size (`tuple[int]`): Height and width.
            eps (`float`): Radius of the ball.
            made_for (`float`, *optional*): The radius that it was made for; its own if not given.
        """
        made_for = parse_radius(self.eps) if made_for is None else made_for
        delta = self.delta * (eps / made_for)
        if delta.shape[-2:] != tuple(size):
            delta = F.interpolate(delta[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
        return delta.clamp(-eps, eps)


def universal(
    classifier: Any,
    images: torch.Tensor,
    labels: Any,
    *,
    file: str,
    eps: float | str | None = None,
    norm: str = "linf",
    made_for: float | str | None = None,
    digest: str | None = None,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Adds one perturbation to all images; no attacker looks at them.

    Args:
        classifier, labels: Not looked at.
        images (`torch.Tensor`): `[B,C,H,W]` in [0,1].
        file (`str`): Where it is, as safetensors: one that [`train_universal`] made, or a published one.
        eps (`float` or `str`, *optional*): The radius to which it is scaled; what it was made for if not given.
        norm (`str`): `"linf"` alone.
        made_for (`float` or `str`, *optional*): The radius that it was made for, if the file does not say.
        digest (`str`, *optional*): What the perturbation's digest must be.
        seeds (`torch.Tensor`, *optional*): Not looked at.

    Raises:
        ValueError: for a file that holds no perturbation, or another than the digest says, one of other channels than
            the images', and a radius that is not known.

    Example:
        >>> UniversalPerturbation(torch.full((3, 4, 4), 0.1), eps=0.1).save("noise.safetensors")
        >>> images = torch.full((2, 3, 8, 8), 0.5)
        >>> universal(None, images, None, file="noise.safetensors", eps=0.05).unique().item()
        0.550000011920929
    """
    images = check_images(images).detach()
    check_seeds(seeds, images)
    check_choice("norm of a universal perturbation", norm, ("linf",))
    perturbation = load_once(file)
    known = completed({"file": file, "eps": eps, "made_for": made_for, "digest": digest})
    if perturbation.delta.shape[0] != images.shape[1]:
        raise ValueError(
            f"{file} holds a perturbation of {perturbation.delta.shape[0]} channels, but the images have "
            f"{images.shape[1]}. Pass one of their channels."
        )

    radius = parse_radius(known["eps"])
    delta = perturbation.at(images.shape[-2:], radius, parse_radius(known["made_for"])).to(images.device)
    return round_inside(images, (at_least_float32(images) + delta).clamp(0, 1))


def completed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of [`universal`] with what its file says: the radius that it was made for, and its digest.

    Raises:
        ValueError: if the file cannot be read, is another than the digest says, or does not say its radius.

    Example:
        >>> UniversalPerturbation(torch.full((3, 4, 4), 0.1), eps="25.5/255").save("noise.safetensors")
        >>> completed({"file": "noise.safetensors", "eps": None, "made_for": None, "digest": None})["eps"]
        '25.5/255'
    """
    file = options["file"]
    perturbation = load_once(file)
    if options["digest"] is not None and str(options["digest"]) != perturbation.digest:
        raise ValueError(
            f"{file} holds the perturbation {perturbation.digest}, not {options['digest']}: the file has changed. "
            "Pass the old one, or leave digest out."
        )
    made_for = perturbation.eps if options["made_for"] is None else options["made_for"]
    if made_for is None:
        raise ValueError(f"{file} does not say for which radius it was made. Add made_for, such as made_for=12/255.")
    if perturbation.eps is not None and parse_radius(made_for) != parse_radius(perturbation.eps):
        raise ValueError(f"{file} was made for the radius {perturbation.eps}, not {made_for}. Leave made_for out.")
    if parse_radius(made_for) == 0:
        raise ValueError("You passed made_for=0, a radius at which there is no perturbation. Pass such as 12/255.")
    eps = made_for if options["eps"] is None else options["eps"]
    return {**options, "eps": eps, "made_for": made_for, "digest": perturbation.digest}


def load_once(file: str | os.PathLike) -> UniversalPerturbation:
    """As [`UniversalPerturbation.load`], which reads a file again only when it has changed.

    Example:
        >>> UniversalPerturbation(torch.zeros(3, 4, 4), eps=0.1).save("noise.safetensors")
        >>> load_once("noise.safetensors") is load_once("noise.safetensors")
        True
    """
    try:
        changed = os.stat(os.fspath(file)).st_mtime_ns
    except (OSError, TypeError) as error:
        raise ValueError(_unreadable(file, error)) from error
    return _load(os.path.abspath(file), changed)


@lru_cache(maxsize=16)
def _load(file: str, changed: int) -> UniversalPerturbation:
    return UniversalPerturbation.load(file)


def _key_of(names: list[str], file: str | os.PathLike) -> str:
    """Under which name a file holds the perturbation."""
    if len(names) == 1:
        return names[0]
    for name in _KEYS:
        if name in names:
            return name
    raise ValueError(f"{file} holds {sorted(names)}, of which none is {' or '.join(_KEYS)}. Keep one of them.")


def _unreadable(file: Any, error: Exception) -> str:
    if Path(str(file)).suffix in (".pt", ".pth", ".bin", ".pkl"):
        return (
            f"You passed the perturbation {file}, but such files can run code when they are read. Convert it where "
            "you trust it: safetensors.torch.save_file({'delta': torch.load(FILE, weights_only=True)}, "
            "'delta.safetensors')."
        )
    return f"You passed the perturbation {file!r}, which cannot be read ({error}). Pass a safetensors file."
