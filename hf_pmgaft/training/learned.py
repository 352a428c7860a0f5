"""What an objective itself learns: parameters that live in the model, where engines and the optimizer find them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ..models.backbones import unwrap


class Learned(nn.Module):
    """A parameter of the objective, in a module of its own, through whose pass engines gather it."""

    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self) -> torch.Tensor:
        value = self.value.full_tensor() if isinstance(self.value, DTensor) else self.value
        return value.view_as(value)


def add_learned(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Adds an objective's own parameters to a model, if there are any, as its submodule `objective`."""
    if values:
        model.objective = nn.ModuleDict({name: Learned(value) for name, value in values.items()})


def learned_by_objective(model: nn.Module) -> dict[str, torch.Tensor]:
    """The objective's own parameters, which live in the model's submodule `objective`, by name."""
    return {name: module() for name, module in getattr(unwrap(model), "objective", {}).items()}
