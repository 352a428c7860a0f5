"""The last blocks of the vision tower are trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..models.backbones import get_encoder
from .base import Tuning, check_at_least_one


@dataclass
class LastBlocks(Tuning):
    """Trains the last blocks of the vision tower, with the layer norm and the projection that follow them.

    Args:
        blocks (`int`): How many.

    Example:
        >>> tuned = LastBlocks(blocks=1).prepare(model)
        >>> tuned.vision_model.encoder.layers[0].mlp.fc1.weight.requires_grad
        False
        >>> tuned.vision_model.encoder.layers[1].mlp.fc1.weight.requires_grad
        True
    """

    blocks: int = 1

    def __post_init__(self):
        check_at_least_one(self, "blocks")

    def prepare(self, model: nn.Module) -> nn.Module:
        backbone = get_encoder(model)
        layers = backbone.vision_layers
        if layers is None:
            raise ValueError(
                f"You passed tuning 'last_blocks' with a {type(model).__name__}, whose vision tower may be of any "
                "kind, so its last blocks are not known. Pass tuning 'vision_tower', or an adapter."
            )
        count = len(model.get_submodule(layers))
        if self.blocks > count:
            raise ValueError(
                f"You passed blocks={self.blocks}, but the vision tower has {count}. Pass {count} or fewer, or the "
                "tuning 'vision_tower' to train all of it."
            )

        first = count - self.blocks
        after = tuple(f"{module}." for module in backbone.after_layers)
        model.requires_grad_(False)
        for name, parameter in backbone.vision_parameters(model):
            if name.startswith(f"{layers}."):
                block = int(name.removeprefix(f"{layers}.").split(".")[0])
                parameter.requires_grad_(block >= first)
            else:
                parameter.requires_grad_(name.startswith(after))
        return model

    def describe(self) -> str:
        return f"last {self.blocks} blocks of the vision tower; no text tower"
