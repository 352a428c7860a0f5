"""One row per dual-encoder family: which parts are its vision tower, and where the projected embeddings come out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import CLIPModel


@dataclass(frozen=True)
class Backbone:
    """Where a dual encoder keeps what this package needs.

    Args:
        model_class (`type`): The class whose instances the row describes.
        vision_modules (`tuple[str, ...]`): Attributes that make up the image side, projection included.
        text_modules (`tuple[str, ...]`): Likewise the text side.
        vision_layers (`str`): Path to the list of transformer blocks of the vision tower.
        image_embeds (`Callable`): `(model, pixel_values [B,3,H,W]) -> [B,D]`, projected and un-normalised.
        image_and_patch_embeds (`Callable`): `(model, pixel_values [B,3,H,W]) -> [B,D], [B,h,w,D]`, by one pass also
            the patch tokens on their grid, through the final layer norm and the projection of the image embedding.
        text_embeds (`Callable`): `(model, input_ids [N,L], attention_mask [N,L]) -> [N,D]`, likewise.
    """

    model_class: type
    vision_modules: tuple[str, ...]
    text_modules: tuple[str, ...]
    vision_layers: str
    image_embeds: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    image_and_patch_embeds: Callable[[nn.Module, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    text_embeds: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]

    def vision_parameters(self, model: nn.Module):
        """Named parameters of the image side, with their names in the whole model."""
        prefixes = tuple(f"{name}." for name in self.vision_modules)
        return [(name, parameter) for name, parameter in model.named_parameters() if name.startswith(prefixes)]

    def vision_copy(self, model: nn.Module) -> VisionTower:
        """A frozen copy of the image side, independent of `model`."""
        parts = {name: copy.deepcopy(getattr(model, name)) for name in self.vision_modules}
        return VisionTower(parts).requires_grad_(False).eval()


class VisionTower(nn.Module):
    """A CLIP image side on its own: `pixel_values [B,3,H,W] -> [B,D]`, projected and un-normalised."""

    def __init__(self, parts: dict[str, nn.Module]):
        super().__init__()
        for name, module in parts.items():
            setattr(self, name, module)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.visual_projection(self.vision_model(pixel_values=pixel_values).pooler_output)

    def with_patches(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings and, `[B,h,w,D]`, the patch tokens in their space."""
        output = self.vision_model(pixel_values=pixel_values)
        return self.visual_projection(output.pooler_output), _clip_patches(self, output, pixel_values)


def text_attention(patch_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
    """Where an image looks like a text: the map of text-guided attention (TGA-ZSR, arXiv 2410.21802).

    Equation: `A_ij = cos(z_ij, t)`, where `z_ij` is the patch token at row i and column j of the grid in the space of
    image and text embeddings, and `t` the text. Differentiable; the paper scales each map to its range and resizes it
    to the image before maps are compared.

    Args:
        patch_embeds (`torch.Tensor`): `[B,h,w,D]`, of a [`Backbone`]'s `patch_embeds`.
        text_embeds (`torch.Tensor`): `[B,D]`, one text per image, such as that of its class.

    Returns:
        `torch.Tensor`: `[B,h,w]`, cosines in [-1,1], neither scaled nor resized; float32, or float64 as given.
    """
    # Normalised over the channels of each token, as in the paper; in fp32 whatever autocast made of the embeddings.
    patches = patch_embeds if patch_embeds.dtype == torch.float64 else patch_embeds.float()
    with torch.autocast(patches.device.type, enabled=False):
        texts = F.normalize(text_embeds.to(patches.dtype), dim=-1)
        return torch.einsum("bhwd,bd->bhw", F.normalize(patches, dim=-1), texts)


def _clip_image_embeds(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    # In `CLIPOutput` the pooler output is already projected.
    return _clip_vision_output(model, pixel_values).pooler_output


def _clip_image_and_patch_embeds(model: nn.Module, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    plain, found = unwrap(model), []

    def project(module, args, output):  # inside the pass, where the weights are there under every engine
        found.append(_clip_patches(plain, output, pixel_values))

    hook = plain.vision_model.register_forward_hook(project)
    try:
        embeds = _clip_image_embeds(model, pixel_values)
    finally:
        hook.remove()
    return embeds, found[0]


def _clip_patches(model: nn.Module, output, pixel_values: torch.Tensor) -> torch.Tensor:
    # The last hidden state is the last block's: CLIP norms and projects its class token alone.
    size = model.vision_model.config.patch_size
    height, width = (edge // size for edge in pixel_values.shape[-2:])
    hidden = output.last_hidden_state[:, 1 : 1 + height * width]  # prompt tokens may follow
    return model.visual_projection(model.vision_model.post_layernorm(hidden)).unflatten(1, (height, width))


def _clip_vision_output(model: nn.Module, pixel_values: torch.Tensor):
    # The model is called as a module, so that autocast, DDP, FSDP and ZeRO hooks fire; its forward asks for text, so
    # it gets the shortest prompt there is.
    prompt = torch.zeros((1, 2), dtype=torch.long, device=pixel_values.device)
    return model(pixel_values=pixel_values, input_ids=prompt).vision_model_output


def _clip_text_embeds(model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    # Likewise; its forward asks for an image.
    config = unwrap(model).config.vision_config
    image = torch.zeros((1, config.num_channels, config.image_size, config.image_size), device=input_ids.device)
    texts = {"input_ids": input_ids, "attention_mask": attention_mask}
    return model(pixel_values=image, **texts).text_model_output.pooler_output


BACKBONES = {
    "clip": Backbone(
        model_class=CLIPModel,
        vision_modules=("vision_model", "visual_projection"),
        text_modules=("text_model", "text_projection"),
        vision_layers="vision_model.encoder.layers",
        image_embeds=_clip_image_embeds,
        image_and_patch_embeds=_clip_image_and_patch_embeds,
        text_embeds=_clip_text_embeds,
    ),
}


def unwrap(model: nn.Module) -> nn.Module:
    """The plain model inside any engine's wrapper and any PEFT model."""
    return unwrap_peft(extract_model_from_parallel(model, keep_torch_compile=False))


def unwrap_peft(model: nn.Module) -> nn.Module:
    """The plain model inside a PEFT model; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def get_backbone(model: nn.Module) -> Backbone:
    """The row for `model`, or a `TypeError` if it is no dual encoder that the package knows."""
    model = unwrap_peft(model)
    for backbone in BACKBONES.values():
        if isinstance(model, backbone.model_class):
            return backbone
    raise TypeError(
        f"You passed a {type(model).__name__}, but zero-shot classification needs an image and a text tower. "
        f"Pass one of: {', '.join(sorted(row.model_class.__name__ for row in BACKBONES.values()))}."
    )
