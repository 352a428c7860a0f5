"""How a model runs for a while: frozen, in full precision, or in the precision of the attack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# In what the training attack may compute, see `PMGAFTConfig`.
ATTACK_PRECISIONS = ("bf16", "follow", "fp32")


@contextlib.contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Runs a model without the autocast that Accelerate put into the instance's `forward`; then puts it back."""
    original, wrapped = getattr(model, "_original_forward", None), model.__dict__.get("forward")
    replace = original is not None and wrapped is not None
    if replace:
        model.forward = original
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        if replace:
            model.forward = wrapped


def attack_context(model: nn.Module, precision: str) -> contextlib.AbstractContextManager:
    """Lets a model compute in one of `ATTACK_PRECISIONS`."""
    if precision == "bf16":
        return torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)
    return full_precision(model) if precision == "fp32" else contextlib.nullcontext()


@contextlib.contextmanager
def frozen(module: Any) -> Iterator[None]:
    """Eval mode without parameter gradients; every flag is afterwards as it was. Other callables pass untouched."""
    if not isinstance(module, nn.Module):
        yield
        return
    training = [(part, part.training) for part in module.modules()]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for part, mode in training:
            part.training = mode


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """In float32 whatever autocast made of it; float64 stays float64."""
    return x if x.dtype == torch.float64 else x.float()
