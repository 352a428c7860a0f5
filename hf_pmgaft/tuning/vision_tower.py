"""The whole vision tower is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..models.backbones import get_encoder
from .base import Tuning


@dataclass
class WholeVisionTower(Tuning):
    """Trains the whole vision tower with its projection, as most methods do.

    Example:
        >>> tuned = WholeVisionTower().prepare(model)
        >>> {name.split(".")[0] for name, parameter in tuned.named_parameters() if parameter.requires_grad} == {
        ...     "vision_model", "visual_projection"}
        True
    """

    def prepare(self, model: nn.Module) -> nn.Module:
        model.requires_grad_(False)
        for _, parameter in get_encoder(model).vision_parameters(model):
            parameter.requires_grad_(True)
        return model

    def describe(self) -> str:
        return "whole vision tower; no text tower"
