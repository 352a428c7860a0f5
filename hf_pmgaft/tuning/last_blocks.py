from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..models.backbones import get_encoder
from .base import Tuning


@dataclass
class LastBlocks(Tuning):
    """The last blocks of the vision tower, with the layer norm and the projection that follow them.

    Args:
        blocks (`int`): How many.
    """

    blocks: int = 1

    def __post_init__(self):
        if self.blocks < 1:
            raise ValueError(f"You passed blocks={self.blocks}, which trains nothing. Pass 1 or more.")

    def prepare(self, model: nn.Module) -> nn.Module:
        backbone = get_encoder(model)
        if backbone.vision_layers is None:
            raise ValueError(
                f"You passed tuning 'last_blocks' with a {type(model).__name__}, whose vision tower may be of any "
                "kind, so its last blocks are not known. Pass tuning 'vision_tower', or an adapter."
            )
        layers, count = backbone.vision_layers, len(model.get_submodule(backbone.vision_layers))
        if self.blocks > count:
            raise ValueError(
                f"You passed blocks={self.blocks}, but the vision tower has {count}. Pass {count} or fewer, or the "
                "tuning 'vision_tower' to train all of it."
            )
        model.requires_grad_(False)
        for name, parameter in backbone.vision_parameters(model):
            if name.startswith(f"{layers}."):
                trained = int(name[len(layers) + 1 :].split(".")[0]) >= count - self.blocks
            else:
                trained = name.startswith(tuple(f"{part}." for part in backbone.after_layers))
            parameter.requires_grad_(trained)
        return model

    def describe(self) -> str:
        return f"last {self.blocks} blocks of the vision tower; no text tower"
