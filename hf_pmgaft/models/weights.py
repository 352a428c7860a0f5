"""Weights in files: read without running any code, and compared with a model's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from .torchscript import is_torchscript, read_torchscript

# Where training scripts put the weights. TeCoA's `state_dict` is that of a prompt, beside the vision tower.
WRAPPERS = ("vision_encoder_state_dict", "state_dict", "model_state_dict", "model", "module")
# What modules are called inside DataParallel, a compiled model, FSDP and recomputed blocks
HOLDERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Numbers that OpenAI's files and a moving average keep beside the weights
NUMBERS = ("input_resolution", "context_length", "vocab_size", "n_averaged")
MOST_SHAPES = 4  # that a message names
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# TeCoA's checkpoints hold an accuracy as NumPy's float64, under the module's name in NumPy 1 or 2.
NUMPY_NUMBER = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    type(np.dtype(np.float64)),
]


def read_weights(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Reads the state dict in a file, out of what training scripts put around it; no pickle can run code.

    The names of what wrapped the model go, and so does what is no weight: tables of positions, causal masks, and the
    numbers in OpenAI's files. Of a TorchScript archive the tensors alone are read.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is damaged, or holds more than tensors, plain containers and numbers.

    Example:
        >>> torch.save({"epoch": 3, "state_dict": {"module.weight": torch.ones(2)}}, "checkpoint.pt")
        >>> read_weights("checkpoint.pt")
        {'weight': tensor([1., 1.])}
    """
    weights = _read(file)
    for wrapper in WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(wrapper), Mapping):
            weights = weights[wrapper]
            break

    _check_state_dict(file, weights)
    weights = _without_holders(file, weights)
    return {name: value for name, value in weights.items() if not _is_leftover(name, value)}


def mismatches(expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> str:
    """Describes by which names, shapes and types weights differ from the expected ones; empty if by none.

    Example:
        >>> mismatches({"bias": torch.ones(2), "weight": torch.ones(3)}, {"bias": torch.ones(2)})
        'missing: weight'
    """
    common = sorted(expected.keys() & weights.keys())
    shapes = [
        f"{name} is {list(weights[name].shape)} in place of {list(expected[name].shape)}"
        for name in common
        if weights[name].shape != expected[name].shape
    ]
    types = [
        f"{name} is {weights[name].dtype}"
        for name in common
        if expected[name].is_floating_point() and weights[name].dtype not in FLOATS
    ]
    differing = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": shapes[:MOST_SHAPES] + ["..."] * (len(shapes) > MOST_SHAPES),
        "of another type": types,
    }
    return "; ".join(f"{kind}: {_first(names)}" for kind, names in differing.items() if names)


def check_finite(model: nn.Module, name: str) -> None:
    """Raises `ValueError` for a model with weights that are not finite, naming the first of them.

    Example:
        >>> check_finite(model, "clip")
        >>> model.logit_scale.data.fill_(float("nan"))
        tensor(nan)
        >>> check_finite(model, "clip")
        Traceback (most recent call last):
        ValueError: The weights of clip are not all finite: logit_scale holds NaN or infinity...
    """
    for key, value in model.state_dict().items():
        # A sum is finite if all of its terms are, and needs no memory.
        if value.is_floating_point() and not value.is_meta and not value.float().sum().isfinite():
            raise ValueError(
                f"The weights of {name} are not all finite: {key} holds NaN or infinity, so no figure of this model "
                "would mean anything. Pass an earlier checkpoint, or download it again."
            )


def _read(file: str | os.PathLike) -> Any:
    try:
        if Path(file).suffix == ".safetensors":
            return load_file(file)
        if is_torchscript(file):
            return read_torchscript(file)
        with torch.serialization.safe_globals(NUMPY_NUMBER):
            return torch.load(file, map_location="cpu", weights_only=True)
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


def _check_state_dict(file: str | os.PathLike, weights: Any) -> None:
    """Raises `ValueError` unless names lead to tensors, and nothing else."""
    advice = "Save it anew by torch.save(model.state_dict(), file)."
    if not isinstance(weights, Mapping) or not any(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError(f"{file} holds no state dict, neither bare nor under one of {', '.join(WRAPPERS)}. {advice}")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{file} holds a {type(value).__name__} under {name!r} in place of a tensor. {advice}")


def _without_holders(file: str | os.PathLike, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights by the names that the model itself gives them."""
    plain = {}
    for name, value in weights.items():
        own_name = ".".join(part for part in name.split(".") if part not in HOLDERS)
        if own_name in plain:
            raise ValueError(
                f"{file} holds the weights of two models, {own_name} and {name}. Save the state dict of one of them."
            )
        plain[own_name] = value

    weighty = [name for name in plain if name not in NUMBERS]
    while weighty and all(name.startswith("model.") for name in weighty):
        plain = {name.removeprefix("model."): value for name, value in plain.items()}
        weighty = [name for name in plain if name not in NUMBERS]
    return plain


def _is_leftover(name: str, value: torch.Tensor) -> bool:
    """Whether an entry of a state dict says nothing that a model would not know by itself."""
    kind = name.rpartition(".")[2]
    if kind in NUMBERS:
        return value.numel() == 1
    if kind == "position_ids":
        return torch.equal(value.flatten().long(), torch.arange(value.numel()))
    if kind == "attn_mask" and value.ndim == 2:
        return torch.equal(value.float(), torch.full_like(value, -torch.inf, dtype=torch.float32).triu(1))
    return False


def _first(names: list[str], most: int = 10) -> str:
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
