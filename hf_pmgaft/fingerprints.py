"""What tells models, lists and images apart, and where two nested settings differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn


def digest(pieces: Iterable[bytes]) -> str:
    """Returns the first twelve hexadecimal digits of the SHA-256 of all pieces, one after the other.

    Example:
        >>> digest([b"a", b"b"]) == digest([b"ab"])
        True
    """
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()[:12]


def digest_of_list(values: Sequence[Any]) -> str:
    """Returns a digest of a list of numbers, texts or lists of them.

    Example:
        >>> digest_of_list([1, 2]) == digest_of_list((1, 2)), digest_of_list([1, 2]) == digest_of_list([2, 1])
        (True, False)
    """
    return digest([json.dumps(list(values)).encode()])


def digest_of_image(image: torch.Tensor, label: int | list[int] | torch.Tensor) -> str:
    """Returns a digest of an image `[3,H,W]` and its label, or labels, in eight hexadecimal digits."""
    pixels = np.ascontiguousarray(image.cpu().numpy()).tobytes()
    label = torch.as_tensor(label).tolist()
    return digest([pixels, str(label).encode()])[:8]


def fingerprint(model: nn.Module) -> str:
    """Tells models apart by a digest of all weights and their names.

    Example:
        >>> before = fingerprint(model)
        >>> _ = model.visual_projection.weight.data.mul_(2)
        >>> fingerprint(model) == before
        False
    """
    return digest(_bytes_of_weights(model.state_dict()))


def fingerprint_without_adapter(model: nn.Module) -> str:
    """Returns the fingerprint of a model without the peft adapter that is trained in it, which begins at random."""
    weights = model.state_dict(keep_vars=True)
    if hasattr(model, "peft_config"):
        weights = {name: value for name, value in weights.items() if not value.requires_grad}
    return digest(_bytes_of_weights(weights))


def differences(a: Any, b: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Finds where two nested dicts differ: by key, joined by dots, the two values. What one lacks is `None` there.

    Example:
        >>> differences({"seed": 0, "versions": {"torch": "2.7"}}, {"seed": 0, "versions": {"torch": "2.8"}})
        {'versions.torch': ('2.7', '2.8')}
    """
    # A dict that one side lacks differs in all of its keys.
    if isinstance(a, dict) and b is None:
        b = {}
    if isinstance(b, dict) and a is None:
        a = {}
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return {} if a == b else {path: (a, b)}

    differing = {}
    for name in sorted({*a, *b}):
        differing |= differences(a.get(name), b.get(name), f"{path}.{name}".strip("."))
    return differing


def _bytes_of_weights(weights: Mapping[str, torch.Tensor]) -> Iterator[bytes]:
    for name, tensor in sorted(weights.items()):
        if tensor.is_meta:
            continue
        yield name.encode()
        # As bytes, which every type has.
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
