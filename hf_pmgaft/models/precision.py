"""The dtype of a model's weights: whether there are any that can be read, and the way to float32."""

from __future__ import annotations

import torch
from torch import nn

from .backbones import unwrap_peft


def check_has_values(model: nn.Module) -> None:
    """Raises `ValueError` for a model whose weights, or some of them, have shapes and no values.

    Example:
        >>> with torch.device("meta"):
        ...     empty = nn.Linear(2, 2)
        >>> check_has_values(empty)
        Traceback (most recent call last):
        ValueError: You passed a Linear whose weight is on the meta device, where weights have no values. Load it ...
    """
    empty = [name for name, value in model.named_parameters() if value.is_meta]
    if empty:
        raise ValueError(
            f"You passed a {type(unwrap_peft(model)).__name__} whose {empty[0]} is on the meta device, where weights "
            "have no values. Load it whole, without `device_map` and outside `torch.device('meta')`."
        )


def check_floating(model: nn.Module) -> None:
    """Raises `ValueError` for a quantised model, whose weights no gradient moves.

    Example:
        >>> check_floating(model)
    """
    plain = unwrap_peft(model)
    integers = [name for name, value in model.named_parameters() if not value.is_floating_point()]
    packed = [name for name, module in model.named_modules() if ".quantized." in type(module).__module__]
    if getattr(plain, "is_quantized", False) or integers or packed:
        raise ValueError(
            f"You passed a quantised {type(plain).__name__}, whose weights stand on a grid that no gradient step "
            "moves them along, and whose rounding attacks see. Load it without `quantization_config`; bf16=True saves "
            "memory in training."
        )


def other_dtypes(model: nn.Module) -> list[str]:
    """Names of the dtypes of a model's weights and buffers of real numbers, other than float32.

    Example:
        >>> other_dtypes(model), other_dtypes(nn.Linear(2, 2, dtype=torch.float16))
        ([], ['float16'])
    """
    dtypes = {value.dtype for value in model.state_dict().values() if value.is_floating_point()}
    return sorted(str(dtype).removeprefix("torch.") for dtype in dtypes - {torch.float32})


def to_float32(model: nn.Module) -> nn.Module:
    """Converts weights and buffers in place, and what the model's configurations say of them, which loading follows.

    Example:
        >>> other_dtypes(to_float32(nn.Linear(2, 2, dtype=torch.float16)))
        []
    """
    config = getattr(unwrap_peft(model), "config", None)
    if config is not None:
        towers = [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
        for part in (config, *towers):
            if part is not None:
                part.dtype = torch.float32
    return model.float()
