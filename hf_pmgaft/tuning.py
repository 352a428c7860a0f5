"""What is trained: the vision tower, its last blocks, or a peft adapter; and how it folds into a plain `CLIPModel`."""

from __future__ import annotations

import copy
import re
from typing import Any

from torch import nn

from .backbones import Backbone, get_backbone, unwrap_peft

DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


def prepare_model(model: nn.Module, trainable_layers: int | None = None, peft_config: Any = None) -> nn.Module:
    """Freezes everything but what is to be trained, and adds the adapter if there is one.

    Args:
        model (`CLIPModel` or `PeftModel`): Changed in place; of a `PeftModel` the adapter is trained.
        trainable_layers (`int`, *optional*): Train the last n blocks of the vision tower, with the layer norm and the
            projection that follow them; the whole vision tower if not given.
        peft_config (`peft.PeftConfig`, *optional*): Train an adapter in the vision tower instead.

    Returns:
        `nn.Module`: `model`, or a `PeftModel` around it.
    """
    backbone = get_backbone(model)
    if peft_config is not None or has_adapter(model):
        if trainable_layers is not None:
            raise ValueError(
                f"You passed an adapter and trainable_layers={trainable_layers}, but an adapter trains no blocks of "
                "the model. Pass one of them; `layers_to_transform` of the peft config chooses blocks."
            )
        if peft_config is not None:
            model = add_adapter(model, backbone, peft_config)
        check_adapter(model, backbone)
        return model
    model.requires_grad_(False)
    for name, parameter in backbone.vision_parameters(model):
        parameter.requires_grad_(_follows(backbone, model, name, trainable_layers))
    return model


def add_adapter(model: nn.Module, backbone: Backbone, peft_config: Any) -> nn.Module:
    """A `PeftModel` whose adapter sits in the vision tower; suffixes in `target_modules` mean that tower only."""
    from peft import get_peft_model

    if has_adapter(model):
        raise ValueError(
            "You passed `peft_config` but the model already has adapters, and their meaning for the teacher would be "
            "unclear. Merge them first (`merge_and_unload()`), or pass the model without `peft_config`."
        )
    peft_config = copy.deepcopy(peft_config)
    targets = getattr(peft_config, "target_modules", None)
    if not isinstance(targets, str):
        names = "|".join(map(re.escape, sorted(DEFAULT_TARGETS if targets is None else targets)))
        peft_config.target_modules = rf"(?=({'|'.join(backbone.vision_modules)})(\.|$))(.*\.)?({names})"
    try:
        return get_peft_model(model, peft_config)
    except ValueError as error:
        raise ValueError(
            f"You passed a peft config whose target_modules {targets!r} match nothing in the vision tower ({error}). "
            "Name modules of it, such as ['q_proj', 'v_proj']."
        ) from error


def check_adapter(model: nn.Module, backbone: Backbone) -> None:
    """Raises `ValueError` unless a model trains an adapter in its vision tower and nothing else."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        raise ValueError(
            f"You passed a {type(model).__name__} with adapter layers inside, which cannot be switched off for the "
            "teacher. Pass the plain model with `peft_config`, or a `PeftModel`."
        )
    trained = [name for name, parameter in model.get_base_model().named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(
            "You passed a `PeftModel` whose adapter is frozen, so nothing would be trained. Load it with "
            "`PeftModel.from_pretrained(..., is_trainable=True)`."
        )
    outside = [name for name in trained if not name.startswith(tuple(f"{part}." for part in backbone.vision_modules))]
    if outside:
        raise ValueError(
            f"The adapter would train {outside[0]} and {len(outside) - 1} more outside the vision tower, but the "
            "class embeddings are computed once. Restrict target_modules to the vision tower."
        )
    own = (model.base_model.prefix, "modules_to_save")
    shared = [name for name in trained if not any(part in name for part in own)]
    if shared:
        raise ValueError(
            f"The adapter would train the model's own {shared[0]} and {len(shared) - 1} more, so the teacher, which "
            'is the model with the adapter off, would change as well. Use bias="none" and freeze the model.'
        )


def has_adapter(model: nn.Module) -> bool:
    """Whether a model is a `PeftModel` or holds adapter layers."""
    return hasattr(model, "peft_config") or any(hasattr(module, "lora_A") for module in model.modules())


def fold_into_clip(model: nn.Module) -> nn.Module:
    """The plain model with the adapter merged into its weights; `model` itself is left as it was."""
    if not hasattr(model, "merge_and_unload"):
        return unwrap_peft(model)
    return copy.deepcopy(model).merge_and_unload()


def _follows(backbone: Backbone, model: nn.Module, name: str, trainable_layers: int | None) -> bool:
    """Whether a parameter of the vision tower belongs to its last blocks or to what follows them."""
    if trainable_layers is None:
        return True
    count = len(model.get_submodule(backbone.vision_layers))
    if trainable_layers > count:
        raise ValueError(
            f"You passed trainable_layers={trainable_layers}, but the vision tower has {count} blocks. Pass {count} "
            "or fewer, or leave it out to train the whole tower."
        )
    if name.startswith(f"{backbone.vision_layers}."):
        return int(name[len(backbone.vision_layers) + 1 :].split(".")[0]) >= count - trainable_layers
    return "post_layernorm" in name or not name.startswith(f"{backbone.vision_layers.split('.')[0]}.")
