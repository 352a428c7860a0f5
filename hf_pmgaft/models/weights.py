"""Weights in files: read without running any code, and compared with a model's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

# Where training scripts put the weights. TeCoA's `state_dict` is that of a prompt, beside the vision tower.
WRAPPERS = ("vision_encoder_state_dict", "state_dict")
# TeCoA's checkpoints hold an accuracy as NumPy's float64, under the module's name in NumPy 1 or 2.
NUMPY_NUMBER = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    type(np.dtype(np.float64)),
]


def read_weights(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Reads the state dict in a file, out of what training scripts put around it; no pickle can run code.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is damaged, or holds more than tensors, plain containers and numbers.

    Example:
        >>> torch.save({"epoch": 3, "state_dict": {"module.weight": torch.ones(2)}}, "checkpoint.pt")
        >>> read_weights("checkpoint.pt")
        {'weight': tensor([1., 1.])}
    """
    try:
        if Path(file).suffix == ".safetensors":
            weights = load_file(file)
        else:
            with torch.serialization.safe_globals(NUMPY_NUMBER):
                weights = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes a reader stumble over
        # Not torch's own message, which goes on to say how to read it all the same.
        needed = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {needed[1]}, and what it calls could do anything" if needed else "it is damaged"
        raise ValueError(
            f"{file} cannot be read as plain weights: {reason}. "
            "Have it saved anew by torch.save(model.state_dict(), file) or as safetensors."
        ) from error

    for wrapper in WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapper), Mapping):
            weights = weights[wrapper]
            break

    values = list(weights.values()) if isinstance(weights, Mapping) else []
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise ValueError(
            f"{file} holds no state dict, neither bare nor under one of {', '.join(WRAPPERS)}. "
            "Save it anew by torch.save(model.state_dict(), file)."
        )
    return {name.removeprefix("module."): value for name, value in weights.items()}  # DataParallel's prefix


def mismatches(expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> str:
    """Describes by which names and shapes weights differ from the expected ones; empty if by none.

    Example:
        >>> mismatches({"bias": torch.ones(2), "weight": torch.ones(3)}, {"bias": torch.ones(2)})
        'missing: weight'
    """
    shapes = [
        f"{name} is {list(weights[name].shape)} in place of {list(expected[name].shape)}"
        for name in sorted(expected.keys() & weights.keys())
        if weights[name].shape != expected[name].shape
    ]
    differing = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": shapes,
    }
    return "; ".join(f"{kind}: {_first(names)}" for kind, names in differing.items() if names)


def _first(names: list[str], most: int = 10) -> str:
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
