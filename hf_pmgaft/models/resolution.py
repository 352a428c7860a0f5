"""A model and its processor at another image size."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ..registry import check_count
from .backbones import get_encoder, unwrap_peft
from .processors import image_processor_of


def at_resolution(model: nn.Module, processor: Any, image_size: int) -> tuple[nn.Module, Any]:
    """Makes a model and its processor for images of another size, by position embeddings interpolated once.

    The family's own interpolation in transformers is used. The size is part of the configurations, so what is saved
    and loaded, trained and evaluated is an ordinary model of that size.

    Args:
        model (`PreTrainedModel`): A plain model.
        processor (*optional*): Its processor or image processor.
        image_size (`int`): Height and width, a multiple of the patch size.

    Returns:
        `tuple`: The model and processor that were given, if they are of this size, else new ones.

    Raises:
        ValueError: for a model that has no position embeddings to interpolate, or a size that is not made of patches.

    Example:
        >>> larger, its_processor = at_resolution(model, processor, 24)
        >>> larger.config.vision_config.image_size, its_processor.image_processor.crop_size["height"]
        (24, 24)
    """
    check_count("image_size", image_size)
    row = get_encoder(model)
    image_size_before = row.image_size(model)
    if image_size == image_size_before:
        return model, processor

    embeddings = next((module for module in model.modules() if hasattr(module, "interpolate_pos_encoding")), None)
    if embeddings is None or unwrap_peft(model) is not model or "tuning" in model._modules:
        raise ValueError(
            f"You passed image_size={image_size} for a {type(model).__name__} in which transformers interpolates no "
            "position embeddings, or one with an adapter. Pass a plain model of another family, or its own "
            f"image_size={image_size_before}."
        )
    patch = getattr(getattr(model.config, "vision_config", model.config), "patch_size", None)
    if image_size < patch or image_size % patch:
        raise ValueError(f"You passed image_size={image_size}, no multiple of the patch size. Pass one of {patch}.")

    # The model of that size, which differs by its table of positions alone
    config = copy.deepcopy(model.config)
    getattr(config, "vision_config", config).image_size = image_size
    larger = type(model)(config)
    state = model.state_dict()
    (key,) = [name for name, value in larger.state_dict().items() if value.shape != state[name].shape]

    # The table, interpolated
    count_before, width = state[key].shape[-2:]
    count = count_before - (image_size_before // patch) ** 2 + (image_size // patch) ** 2
    with torch.no_grad():
        tokens = state[key].new_zeros(1, count, width)  # asked for their number alone
        positions = embeddings.interpolate_pos_encoding(tokens, image_size, image_size)
    larger.load_state_dict({**state, key: positions.view(larger.state_dict()[key].shape)})

    larger = larger.to(device=model.device, dtype=model.dtype).train(model.training)
    return larger, None if processor is None else _processor_of_size(processor, image_size)


def _processor_of_size(processor: Any, image_size: int) -> Any:
    processor = copy.deepcopy(processor)
    image_processor = image_processor_of(processor)
    square = {"height": image_size, "width": image_size}
    size = dict(image_processor.size)
    crop = dict(getattr(image_processor, "crop_size", None) or {})

    if "shortest_edge" in size:  # in proportion to the crop, where the two differ
        crops = crop and getattr(image_processor, "do_center_crop", False)
        edge = max(crop.values()) if crops else size["shortest_edge"]
        shortest_edge = round(size["shortest_edge"] * image_size / edge)
        image_processor.size = type(image_processor.size)(shortest_edge=shortest_edge)
    else:
        image_processor.size = type(image_processor.size)(**square)
    if crop:
        image_processor.crop_size = type(image_processor.crop_size)(**square)
    return processor
