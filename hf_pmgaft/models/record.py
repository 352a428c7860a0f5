"""Where a model is from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from .backbones import unwrap_peft


def model_record(model: nn.Module, name: str) -> dict[str, Any]:
    """Gives what reports record of where a model is from: its name and, on the Hub, its commit.

    Args:
        model (`nn.Module`): What was loaded.
        name (`str`): The name that was passed; of a path its last part is recorded.

    Example:
        >>> model_record(model, "/home/me/robust-clip")
        {'name': 'robust-clip'}
    """
    if Path(name).exists() or Path(name).is_absolute():
        return {"name": Path(name).resolve().name}
    commit = getattr(getattr(unwrap_peft(model), "config", None), "_commit_hash", None)
    return {"name": name, "commit": commit} if commit else {"name": name}
