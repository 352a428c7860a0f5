"""What a CLIP makes of each patch of an image, computed by hand."""

import torch

from hf_pmgaft.models.backbones import get_backbone
from support.tiny import SIZE

PATCH = 4


def vary_layer_norms(model):
    """Makes layer norms that can be told apart, which they cannot as they are initialised."""
    with torch.no_grad():
        for norm in (model.vision_model.pre_layrnorm, model.vision_model.post_layernorm):
            norm.weight.add_(0.5 * torch.randn_like(norm.weight))
            norm.bias.add_(0.5 * torch.randn_like(norm.bias))
    return model


def pixels(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def tokens_by_hand(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """All tokens, the class token first, in the space of the embeddings: `[B,1+P,D]`."""
    vision = model.vision_model
    states = vision.pre_layrnorm(vision.embeddings(pixel_values))
    for block in vision.encoder.layers:
        states = block(states, None)
    return vision.post_layernorm(states) @ model.visual_projection.weight.T


def patch_embeds(model, pixel_values: torch.Tensor) -> torch.Tensor:
    return get_backbone(model).image_and_patch_embeds(model, pixel_values)[1]
