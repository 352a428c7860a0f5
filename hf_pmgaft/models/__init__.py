"""Dual encoders and image encoders: what this package needs to know of each family, and their files."""

from .backbones import (
    BACKBONES,
    ENCODERS,
    REFUSED,
    check_dual_encoder,
    check_encoder,
    get_backbone,
    get_encoder,
    unwrap,
    unwrap_peft,
)
from .processors import image_processor_of, pixel_statistics, tokenizer_of
from .resolution import at_resolution

__all__ = [
    "BACKBONES",
    "ENCODERS",
    "REFUSED",
    "at_resolution",
    "check_dual_encoder",
    "check_encoder",
    "get_backbone",
    "get_encoder",
    "image_processor_of",
    "pixel_statistics",
    "tokenizer_of",
    "unwrap",
    "unwrap_peft",
]
