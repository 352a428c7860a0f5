"""Zero-shot models as they are: checked, in float32, and as classifiers of sets."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from ..data.evaluation_sets import ZeroShotDataset
from ..engines import check_unwrapped
from ..models.backbones import check_dual_encoder
from ..models.own_classes import check_own_pass
from ..models.precision import check_has_values, other_dtypes
from ..models.processors import pixel_statistics
from ..tuning.peft_adapter import check_takes_images
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, encode_prompts


def check_zero_shot(model: nn.Module, processor: Any) -> None:
    """Raises `TypeError` or `ValueError` for a model that cannot classify images by class names, or has no weights.

    Example:
        >>> check_zero_shot(model, processor)
    """
    check_unwrapped(model)
    check_has_values(model)
    check_takes_images(model)
    check_dual_encoder(model)
    check_own_pass(model)
    pixel_statistics(processor)


def in_float32(model: nn.Module) -> nn.Module:
    """The model, or a copy of it in float32 if it is stored in something else.

    Example:
        >>> in_float32(model) is model, in_float32(model.half()).dtype
        (True, torch.float32)
    """
    return copy.deepcopy(model).float() if other_dtypes(model) else model


def classifier_of(model: nn.Module, processor: Any, data: ZeroShotDataset) -> ZeroShotClassifier:
    """The classifier of a set by its class names and templates.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> food = ZeroShotDataset(dataset, processor, prompt_templates="a photo of the {}", name="food")
        >>> classifier_of(model, processor, food)(images).shape
        torch.Size([16, 4])
    """
    prompts = ClassPrompts.of(model, processor, data.class_names, data.prompt_templates)
    return ZeroShotClassifier.from_model(model, processor, encode_prompts(model, prompts))
