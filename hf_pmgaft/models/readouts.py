"""Readouts: patch tokens in the space of texts by another attention in the last block, without any training.

Whoever segments by a dual encoder compares its patch tokens with texts. Those of the last block were never trained for
it, and mix what they are with what the whole image is; each readout changes how they are mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..registry import check_choice
from .backbones import BACKBONES, get_backbone, unwrap
from .lean import TOWERS, lean_forwards, replaced

# Queries, keys and values `[B,heads,N,d]`, and what scores are multiplied by -> mixed values `[B,heads,N,d]`.
Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]

# Classes of blocks whose queries, keys and values come of three linear layers, and of one.
SEPARATE = frozenset(TOWERS.values())
FUSED = frozenset({"BlipEncoderLayer"})
# Families with patch tokens and another last block, and what is known of it.
OTHERS = {
    "Aimv2Model": "pools its patches by one more attention after its last block",
    "SiglipModel": "pools its patches by one more attention after its last block",
    "Tipsv2Model": "scales what attention adds in its blocks",
}


@dataclass(frozen=True)
class Readout:
    """How the patch tokens of a last block are made.

    Args:
        mix (`Callable`, *optional*): The attention in place of the block's own; `None` leaves the block as it is.
        is_whole (`bool`): Whether the block's residual and MLP take part.
        scale (`float`): What its authors multiply cosines by, before the softmax over names.
    """

    mix: Mix | None
    is_whole: bool
    scale: float


def maskclip(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Each token's own value alone (MaskCLIP, Zhou et al., ECCV 2022, arXiv 2112.01071)."""
    return values


def sclip(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Tokens of like queries and of like keys; rows sum to 2 (SCLIP, Wang et al., ECCV 2024, arXiv 2312.01597)."""
    return _attend(queries, queries, values, scale) + _attend(keys, keys, values, scale)


def clearclip(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Tokens of like queries, and no residual and MLP (ClearCLIP, Lan et al., ECCV 2024, arXiv 2407.12442)."""
    return _attend(queries, queries, values, scale)


READOUTS: dict[str, Readout] = {
    "clearclip": Readout(clearclip, is_whole=False, scale=50.0),
    "maskclip": Readout(maskclip, is_whole=True, scale=100.0),
    "sclip": Readout(sclip, is_whole=True, scale=40.0),
    "vanilla": Readout(None, is_whole=True, scale=100.0),
}


def patch_embeds(model: nn.Module, pixel_values: torch.Tensor, readout: str) -> torch.Tensor:
    """Makes patch tokens in the space of text embeddings.

    The class token stays among keys and values. The layer norm and the projection that make the embedding of the
    class token then make those of the patches. Gradients go to the pixels, and to what is trained.

    Args:
        model (dual encoder or PEFT model): In eval mode.
        pixel_values (`torch.Tensor`): `[B,3,H,W]`, normalised, of the model's size.
        readout (`str`): One of `READOUTS`.

    Returns:
        `torch.Tensor`: `[B,h,w,D]`, projected and un-normalised.

    Raises:
        ValueError: for an unknown readout, and one that the model has not; see [`check_readout`].

    Example:
        >>> pixel_values = processor(images=dataset["image"][:2], return_tensors="pt")["pixel_values"]
        >>> patch_embeds(model, pixel_values, "sclip").shape
        torch.Size([2, 4, 4, 24])
    """
    check_readout(model, readout)
    row, plain = get_backbone(model), unwrap(model)
    block = plain.get_submodule(row.vision_layers)[-1]
    way = READOUTS[readout]

    # Every token of the last block is needed; else the pass may be as lean as those of embeddings.
    forwards = [(module, forward) for module, forward in lean_forwards(model, plain) if module is not block]
    if way.mix is not None:
        # The modules are called as ever, so that adapters which follow them take part.
        forwards.append((block.self_attn, partial(_attention, block, way.mix)))
    if not way.is_whole:
        forwards.append((block, partial(_attention_alone, block)))
    with replaced(forwards):
        return row.image_and_patch_embeds(model, pixel_values)[1]


def check_readout(model: nn.Module, readout: str) -> None:
    """Raises `ValueError` for an unknown readout, and for one of a model that has no such patch tokens.

    Example:
        >>> check_readout(model, "sclip")
        >>> check_readout(model, "clip")
        Traceback (most recent call last):
        ValueError: There is no readout 'clip'. Choose one of ['clearclip', 'maskclip', 'sclip', 'vanilla'].
    """
    check_choice("readout", readout, READOUTS)
    row, plain = get_backbone(model), unwrap(model)
    name = type(plain).__name__
    if row.patches is None:
        families = sorted(name for name, other in BACKBONES.items() if other.patches is not None)
        raise ValueError(
            f"You passed a {name} to be read out by {readout!r}, but it has no patch tokens in the space of its "
            f"embeddings. Pass one of: {', '.join(families)}."
        )

    block = type(plain.get_submodule(row.vision_layers)[-1]).__name__
    if READOUTS[readout].mix is not None and block not in SEPARATE | FUSED:
        why = OTHERS.get(name, f"has vision blocks of the class {block}, whose attention is not known")
        families = sorted(
            name for name, other in BACKBONES.items() if other.patches is not None and name not in OTHERS
        )
        raise ValueError(
            f"You passed a {name} to be read out by {readout!r}, but it {why}. Pass the readout 'vanilla', or one of: "
            f"{', '.join(families)}."
        )


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    return F.scaled_dot_product_attention(queries, keys, values, scale=scale)


def _attention(block: nn.Module, mix: Mix, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
    """The pass of a block's attention, `[B,N,D] -> [B,N,D]`, in which tokens are mixed in another way."""
    attention = block.self_attn
    heads = (attention.num_heads, attention.head_dim)
    if type(block).__name__ in FUSED:
        parts = attention.qkv(hidden_states).chunk(3, dim=-1)
        output = attention.projection
    else:
        parts = (attention.q_proj(hidden_states), attention.k_proj(hidden_states), attention.v_proj(hidden_states))
        output = attention.out_proj

    queries, keys, values = (part.unflatten(-1, heads).transpose(1, 2) for part in parts)
    mixed = mix(queries, keys, values, attention.scale)
    return output(mixed.transpose(1, 2).flatten(2)), None


def _attention_alone(block: nn.Module, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The pass of a block without its residual and its MLP."""
    return block.self_attn(hidden_states=block.layer_norm1(hidden_states))[0]
