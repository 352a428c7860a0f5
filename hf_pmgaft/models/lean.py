"""Passes in which the image tower computes what its class token needs and no more, inside the model itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import is_compiled_module
from torch import nn
from torch.nn.modules import module as torch_module
from transformers.modeling_outputs import BaseModelOutputWithPooling

# Where torch keeps the hooks of every module. Older torch has no function that tells whether there are any.
GLOBAL_HOOKS = (
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
)

# Vision towers whose forward passes are CLIP's line by line in transformers, and the class of their blocks.
TOWERS = {
    "CLIPVisionModel": "CLIPEncoderLayer",
    "MetaClip2VisionModel": "MetaClip2EncoderLayer",
    "ChineseCLIPVisionModel": "ChineseCLIPVisionLayer",
    "AltCLIPVisionModel": "AltCLIPEncoderLayer",
}
# Text towers of which the model's own forward takes the pooled output alone.
TEXT_TOWERS = ("CLIPTextModel", "MetaClip2TextModel")
# What computes each token by itself and, unlike most quantised layers, independently of the tokens beside it.
PER_TOKEN = {
    *("torch.nn.modules.linear.Linear", "torch.nn.modules.linear.Identity"),
    *("torch.nn.modules.normalization.LayerNorm", "torch.nn.modules.dropout.Dropout"),
    *("torch.nn.modules.container.ModuleDict", "torch.nn.modules.container.ParameterDict"),
    "peft.tuners.lora.layer.Linear",
}


@contextlib.contextmanager
def lean(model: nn.Module, unwrapped: nn.Module) -> Iterator[None]:
    """Saves work in passes that are asked for embeddings alone, and so for the class token.

    The values are the same to round-off:

    - The last block computes queries, output and MLP for the class token alone.
    - The patch embedding is a product of matrices.
    - The text tower, to which such passes give a dummy prompt, answers with a constant.

    For the duration, the modules concerned have another `forward` of their own; the model is called as ever, under
    whatever holds it. Each of the three gives way by itself where the whole pass is needed: in other families; where a
    hook, an engine or `torch.compile` sits on what would be passed over; where hidden states or another attention than
    sdpa are asked for; under gradient checkpointing, dropout and quantised layers.

    Args:
        model (`nn.Module`): What is called.
        unwrapped (`nn.Module`): The model, or its image side, inside it.

    Example:
        >>> whole = model(pixel_values=images, input_ids=torch.zeros((1, 2), dtype=torch.long)).image_embeds
        >>> with lean(model, model):
        ...     embeds = model(pixel_values=images, input_ids=torch.zeros((1, 2), dtype=torch.long)).image_embeds
        >>> torch.allclose(embeds, whole, atol=1e-5)
        True
    """
    with replaced(lean_forwards(model, unwrapped)):
        yield


def lean_forwards(model: nn.Module, unwrapped: nn.Module) -> list[tuple[nn.Module, Callable]]:
    """The modules that compute something else in a pass of [`lean`], and what; none where they give way.

    Example:
        >>> [type(module).__name__ for module, _ in lean_forwards(model, model)]
        ['Conv2d', 'CLIPEncoderLayer', 'CLIPTextModel']
    """
    return [] if _is_out_of_reach(model) else _replacements(unwrapped)


@contextlib.contextmanager
def replaced(forwards: Sequence[tuple[nn.Module, Callable]]) -> Iterator[None]:
    """Gives modules another `forward` of their own for a while.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with replaced([(layer, torch.neg)]):
        ...     layer(torch.ones(2)).tolist()
        [-1.0, -1.0]
    """
    for module, forward in forwards:
        vars(module)["forward"] = forward
    try:
        yield
    finally:
        for module, _ in forwards:
            del vars(module)["forward"]


def _is_out_of_reach(model: nn.Module) -> bool:
    """Whether the pass is compiled or watched as a whole, or computed by copies of the model."""
    return (
        is_compiled_module(model)
        or is_compiled_module(getattr(model, "module", model))
        or isinstance(model, nn.DataParallel)
        or torch.compiler.is_compiling()
        or any(getattr(torch_module, name) for name in GLOBAL_HOOKS)
    )


def _replacements(unwrapped: nn.Module) -> list[tuple[nn.Module, Callable]]:
    """The modules that compute something else, and what."""
    # The vision tower, and what is called on the way to it
    holders = []
    tower = unwrapped
    while type(tower).__name__ not in TOWERS:
        holders.append(tower)
        tower = getattr(tower, "vision_model", None)
        if tower is None:
            return []

    replacements = []
    patch_embedding = tower.embeddings.patch_embedding
    if _has_touching_windows(patch_embedding):
        replacements.append((patch_embedding, partial(_patches_by_product, patch_embedding)))

    # Autocast is a `forward` of whatever is called, so that this one may have another.
    is_called = tower is unwrapped
    if any(holder._forward_hooks for holder in [*holders, tower]) or not (is_called or _is_bare(tower)):
        return replacements

    last_block = tower.encoder.layers[-1]
    if _needs_class_token_alone(tower, last_block):
        replacements.append((last_block, partial(_class_token_alone, last_block)))
    text = getattr(unwrapped, "text_model", None)
    if type(text).__name__ in TEXT_TOWERS and all(map(_is_bare, text.modules())):
        replacements.append((text, partial(_constant_text, text)))
    return replacements


def _is_bare(module: nn.Module) -> bool:
    """Whether a module's call does what its class says, and nothing else."""
    attributes = vars(module)
    return not (
        attributes["_forward_hooks"]
        or attributes["_forward_pre_hooks"]
        or attributes["_backward_hooks"]
        or attributes["_backward_pre_hooks"]
        or "forward" in attributes
        or module._compiled_call_impl
    )


def _has_touching_windows(conv: nn.Module) -> bool:
    """Whether a layer is a plain convolution whose windows neither overlap nor leave gaps."""
    return (
        type(conv) is nn.Conv2d
        and _is_bare(conv)
        and conv.stride == conv.kernel_size
        and conv.padding in ((0, 0), "valid")
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )


def _needs_class_token_alone(tower: nn.Module, layer: nn.Module) -> bool:
    """Whether nothing but the class token of a tower's last block is looked at, and the block treats tokens apart."""
    config = tower.config
    if (
        type(layer).__name__ != TOWERS[type(tower).__name__]
        or config._attn_implementation != "sdpa"
        or config.output_hidden_states
        or config.output_attentions
        or not _is_bare(tower.encoder)
        or (layer.training and layer.gradient_checkpointing)
        or (layer.self_attn.training and layer.self_attn.dropout)
    ):
        return False

    replaced = (layer, layer.self_attn, layer.mlp, layer.mlp.activation_fn)  # whose own passes are not run
    return all(
        _is_bare(module)
        and (module in replaced or _is_per_token(type(module)))
        and not (module.training and getattr(module, "p", 0))
        for module in layer.modules()
    )


@cache
def _is_per_token(kind: type) -> bool:
    return f"{kind.__module__}.{kind.__qualname__}" in PER_TOKEN


def _class_token_alone(
    layer: nn.Module, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> torch.Tensor:
    """A block of the encoder, `[B,N,D] -> [B,1,D]`."""
    attention = layer.self_attn
    heads = (attention.num_heads, attention.head_dim)
    normed = layer.layer_norm1(hidden_states)

    # Attention, whose keys and values come from every token
    query = attention.q_proj(normed[:, :1]).unflatten(-1, heads).transpose(1, 2)
    key = attention.k_proj(normed).unflatten(-1, heads).transpose(1, 2)
    value = attention.v_proj(normed).unflatten(-1, heads).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(query, key, value, scale=attention.scale)
    hidden = hidden_states[:, :1] + attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.layer_norm2(hidden))


def _patches_by_product(conv: nn.Conv2d, pixel_values: torch.Tensor) -> torch.Tensor:
    """A convolution whose windows touch, `[B,C,H,W] -> [B,D,h,w]`."""
    height, width = conv.kernel_size
    batch, channels = pixel_values.shape[:2]
    rows = pixel_values.shape[2] // height
    columns = pixel_values.shape[3] // width

    patches = pixel_values[:, :, : rows * height, : columns * width]
    patches = patches.reshape(batch, channels, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
    patches = F.linear(patches.reshape(batch, rows * columns, -1), conv.weight.flatten(1), conv.bias)
    return patches.transpose(1, 2).unflatten(2, (rows, columns))


def _constant_text(text: nn.Module, input_ids: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
    """The output of a text tower for a dummy prompt; nobody reads it."""
    pooled = torch.ones(
        (len(input_ids), text.config.hidden_size), dtype=text.final_layer_norm.weight.dtype, device=input_ids.device
    )
    return BaseModelOutputWithPooling(last_hidden_state=pooled.unsqueeze(1), pooler_output=pooled)
