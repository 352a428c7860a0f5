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
    """Runs a model without the autocast that Accelerate put into the instance's `forward`, and then puts it back.

    Example:
        >>> with full_precision(model):
        ...     embeds = model.visual_projection(torch.ones(1, 32))
        >>> embeds.dtype
        torch.float32
    """
    original = getattr(model, "_original_forward", None)
    wrapped = model.__dict__.get("forward")
    is_wrapped = original is not None and wrapped is not None
    if is_wrapped:
        model.forward = original
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        if is_wrapped:
            model.forward = wrapped


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Lets a GPU multiply and convolve in float32 for a while, where TensorFloat-32 is allowed.

    Example:
        >>> with without_tf32():
        ...     product = torch.ones(2, 2) @ torch.ones(2, 2)
    """
    backends = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):  # from torch 2.9 on
        switches = [(backends.cuda.matmul, "fp32_precision"), (backends.cudnn.conv, "fp32_precision")]
        off: Any = "ieee"
    else:
        switches = [(backends.cuda.matmul, "allow_tf32"), (backends.cudnn, "allow_tf32")]
        off = False

    before = [getattr(place, name) for place, name in switches]
    for place, name in switches:
        setattr(place, name, off)
    try:
        yield
    finally:
        for (place, name), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def attack_context(model: nn.Module, precision: str) -> contextlib.AbstractContextManager:
    """Lets a model compute in one of `ATTACK_PRECISIONS`.

    Example:
        >>> with attack_context(model, "bf16"):
        ...     embeds = model.visual_projection(torch.ones(1, 32))
        >>> embeds.dtype
        torch.bfloat16
    """
    if precision == "bf16":
        return torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)
    if precision == "fp32":
        return full_precision(model)
    return contextlib.nullcontext()


@contextlib.contextmanager
def frozen(module: Any) -> Iterator[None]:
    """Puts a module in eval mode without parameter gradients, and brings back every flag as it was.

    Other callables are left alone.

    Example:
        >>> model = model.train()
        >>> with frozen(model):
        ...     model.training, any(parameter.requires_grad for parameter in model.parameters())
        (False, False)
        >>> model.training
        True
    """
    if not isinstance(module, nn.Module):
        yield
        return

    modes = [(submodule, submodule.training) for submodule in module.modules()]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for submodule, training in modes:
            submodule.training = training


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Makes float32 of whatever autocast left; float64 stays float64.

    Example:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x if x.dtype == torch.float64 else x.float()
