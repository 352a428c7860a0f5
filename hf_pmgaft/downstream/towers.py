"""A robust vision tower in other models: LLaVA, PaliGemma, Gemma 3 and their relatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..models.backbones import unwrap
from ..models.weights import mismatches
from ..tuning import fold_into_clip

# Towers that are made robust as encoders, by the `model_type` of their configuration.
SWAPPED = ("clip_vision_model", "siglip_vision_model")
# Where models keep their tower.
PLACES = ("vision_tower", "visual")
# What SigLIP pools by, which many models leave out.
HEAD = "head."
# Entries of a tower's configuration that change what equal weights compute.
MEANING = ("num_attention_heads", "hidden_act", "layer_norm_eps", "image_size", "patch_size")


def vision_tower(model: nn.Module) -> nn.Module:
    """Finds the vision tower, without projection, of a dual encoder or a vision-language model: itself, no copy.

    Raises:
        TypeError: if there is none.

    Example:
        >>> from hf_pmgaft import vision_tower
        >>> vision_tower(model).config.image_size
        16
    """
    plain = unwrap(model)
    inner = getattr(plain, "model", plain)
    tower = next((getattr(inner, name) for name in PLACES if hasattr(inner, name)), inner)
    tower = getattr(tower, "vision_model", tower)
    if getattr(getattr(tower, "config", None), "patch_size", None) is None:
        raise TypeError(
            f"You passed a {type(plain).__name__}, which has no vision tower. Pass a CLIP, a SigLIP or a "
            "vision-language model."
        )
    return tower


@torch.no_grad()
def swap_vision_tower(model: nn.Module, tower: nn.Module) -> None:
    """Gives a vision-language model the weights of another vision tower; all its other weights stay, bit for bit.

    The robust tower of a tuned CLIP takes the place of the one that LLaVA was built on, without any training (FARE,
    arXiv 2402.12336). Nothing is changed if it does not fit.

    Args:
        model (`PreTrainedModel`): Changed in place. A model on a CLIP's tower (LLaVA, LLaVA-NeXT) or a SigLIP's
            (PaliGemma, Gemma 3, LLaVA-OneVision).
        tower (`nn.Module`): `CLIPModel`, `CLIPVisionModel`, `CLIPVisionModelWithProjection`, `SiglipModel`,
            `SiglipVisionModel`, PEFT model or another such model; what was trained beside its weights is folded in.
            Its dtype must be that of `model`. A head by which it pools stays behind where `model` has none.

    Raises:
        TypeError: if one of the two holds no vision tower, or the tower of `model` is of a kind of its own.
        ValueError: if the towers differ in class, configuration, names, shapes or dtype, or `tower` says in its
            configuration (as a LLaVA does) that it is made for the features of another hidden layer
            (`vision_feature_layer`, `vision_feature_select_strategy`); the message names the differences.

    Example:
        >>> from transformers import LlavaForConditionalGeneration
        >>> from hf_pmgaft import load_model, swap_vision_tower
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> llava = LlavaForConditionalGeneration.from_pretrained(emoji_folder() / "llava")
        >>> swap_vision_tower(llava, load_model(str(emoji_folder() / "model")))
    """
    present = vision_tower(model)
    if present.config.model_type not in SWAPPED:
        raise TypeError(
            f"You passed a {type(unwrap(model)).__name__}, whose vision tower is a {type(present).__name__}: no "
            "encoder of that kind can be made robust, so that none can take its place. Pass a model on a CLIP or a "
            "SigLIP."
        )
    donor = fold_into_clip(tower)
    new = vision_tower(donor)
    differences = _differences(present, new)
    differences += _other_features(unwrap(model), donor, present.config.num_hidden_layers)
    if differences:
        raise ValueError(
            f"You passed a tower of a {type(donor).__name__} that does not fit the {type(unwrap(model)).__name__}: "
            f"{'; '.join(differences)}. Pass the tower of a model tuned from the same CLIP, in the same dtype."
        )

    weights = new.state_dict()
    for name, value in present.state_dict().items():
        value.copy_(weights[name])


def _differences(present: nn.Module, new: nn.Module) -> list[str]:
    """In what a new tower differs from the present one, other than in the values of its weights."""
    if type(present) is not type(new):
        return [f"it is a {type(new).__name__}, not a {type(present).__name__}"]
    expected, weights = present.state_dict(), new.state_dict()
    if not any(name.startswith(HEAD) for name in expected):
        weights = {name: value for name, value in weights.items() if not name.startswith(HEAD)}
    mismatch = mismatches(expected, weights)
    if mismatch:
        return [mismatch]

    # Configuration and types
    compared = [(name, getattr(new.config, name, None), getattr(present.config, name, None)) for name in MEANING]
    dtypes = {(weights[name].dtype, value.dtype) for name, value in expected.items()}
    compared += [("dtype", *pair) for pair in sorted(dtypes, key=str)]
    differences = [f"{name} is {value}, not {wanted}" for name, value, wanted in compared if value != wanted]

    if any(value.is_meta for value in [*expected.values(), *weights.values()]):
        differences.append("weights are on the meta device or offloaded; load both models onto devices")
    return differences


def _other_features(model: nn.Module, donor: nn.Module, num_layers: int) -> list[str]:
    """What a donor says about the features that its tower is made for, where `model` reads others."""
    differences = []
    for name in ("vision_feature_layer", "vision_feature_select_strategy"):
        wanted = getattr(model.config, name, None)
        for config in (donor.config, vision_tower(donor).config):
            value = getattr(config, name, None)
            if value is not None and _position(value, num_layers) != _position(wanted, num_layers):
                differences.append(f"{name} is {value}, not {wanted}")
    return list(dict.fromkeys(differences))


def _position(layer: Any, num_layers: int) -> Any:
    """A hidden layer's number from the front: -2 of 24 layers is the 23rd of the 25 hidden states."""
    if isinstance(layer, int):
        return layer % (num_layers + 1)
    if isinstance(layer, list):
        return [_position(part, num_layers) for part in layer]
    return layer
