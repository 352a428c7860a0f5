"""A robust vision tower in other models: LLaVA and its relatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..models.backbones import unwrap
from ..models.weights import mismatches
from ..tuning import fold_into_clip

# What weights of equal shapes do not show.
MEANING = ("num_attention_heads", "hidden_act", "layer_norm_eps", "image_size", "patch_size")


def vision_tower(model: nn.Module) -> nn.Module:
    """The vision tower, without projection, inside a CLIP of any class or a LLaVA: the module itself, no copy.

    Raises:
        TypeError: if there is none.
    """
    plain = unwrap(model)
    inner = getattr(plain, "model", plain)
    tower = getattr(inner, "vision_tower", inner)
    tower = getattr(tower, "vision_model", tower)
    if getattr(getattr(tower, "config", None), "patch_size", None) is None:
        raise TypeError(f"You passed a {type(plain).__name__}, which has no vision tower. Pass a CLIP or a LLaVA.")
    return tower


@torch.no_grad()
def swap_vision_tower(model: nn.Module, tower: nn.Module) -> None:
    """Gives a LLaVA the weights of another vision tower, in place; all its other weights stay, bit for bit.

    The robust tower of a tuned CLIP takes the place of the one that LLaVA was built on, without any training (FARE,
    arXiv 2402.12336). Nothing is changed if it does not fit.

    Args:
        model (`LlavaForConditionalGeneration` or a relative with a `vision_tower`): Changed in place.
        tower (`nn.Module`): `CLIPModel`, `CLIPVisionModel`, `CLIPVisionModelWithProjection`, PEFT model or another
            LLaVA; what was trained beside its weights is folded in. Its dtype must be that of `model`.

    Raises:
        TypeError: if one of the two holds no vision tower.
        ValueError: if the towers differ in class, configuration, names, shapes or dtype, or `tower` says in its
            configuration (as a LLaVA does) that it is made for the features of another hidden layer
            (`vision_feature_layer`, `vision_feature_select_strategy`); the message names the differences.
    """
    donor = fold_into_clip(tower)
    ours, theirs = vision_tower(model), vision_tower(donor)
    wrong = _differences(ours, theirs) + _other_selection(unwrap(model), donor, ours.config.num_hidden_layers)
    if wrong:
        raise ValueError(
            f"You passed a tower of a {type(donor).__name__} that does not fit the {type(unwrap(model)).__name__}: "
            f"{'; '.join(wrong)}. Pass the tower of a model tuned from the same CLIP, in the same dtype."
        )
    weights = theirs.state_dict()
    for name, value in ours.state_dict().items():
        value.copy_(weights[name])


def _differences(ours: nn.Module, theirs: nn.Module) -> list[str]:
    if type(ours) is not type(theirs):
        return [f"it is a {type(theirs).__name__}, not a {type(ours).__name__}"]
    expected, found = ours.state_dict(), theirs.state_dict()
    if wrong := mismatches(expected, found):
        return [wrong]
    pairs = [(name, getattr(theirs.config, name, None), getattr(ours.config, name, None)) for name in MEANING]
    dtypes = {(found[name].dtype, value.dtype) for name, value in expected.items()}
    pairs += [("dtype", *pair) for pair in sorted(dtypes, key=str)]
    wrong = [f"{name} is {other}, not {own}" for name, other, own in pairs if other != own]
    if any(value.is_meta for value in [*expected.values(), *found.values()]):
        wrong.append("weights are on the meta device or offloaded; load both models onto devices")
    return wrong


def _other_selection(model: nn.Module, donor: nn.Module, num_layers: int) -> list[str]:
    def position(value: Any) -> Any:  # -2 of 24 layers is the 23rd of the 25 hidden states
        if isinstance(value, int):
            return value % (num_layers + 1)
        return [position(part) for part in value] if isinstance(value, list) else value

    wrong = []
    for name in ("vision_feature_layer", "vision_feature_select_strategy"):
        wanted = getattr(model.config, name, None)
        for config in (donor.config, vision_tower(donor).config):
            made_for = getattr(config, name, None)
            if made_for is not None and position(made_for) != position(wanted):
                wrong.append(f"{name} is {made_for}, not {wanted}")
    return list(dict.fromkeys(wrong))
