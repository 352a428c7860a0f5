"""Checkpoints laid out as others publish them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hf_pmgaft.models.open_clip_config import open_clip_config
from support.open_clip import OpenClip, make_clip, other_clip
from support.tiny import make_processor


def described(act: str = "quick_gelu") -> dict[str, Any]:
    """What `open_clip_config.json` says of the tiny model, in sections that may be changed."""
    return json.loads(json.dumps(open_clip_config(make_clip(act).config, make_processor())))


def open_clip_folder(folder: Path, act: str = "quick_gelu", config: dict[str, Any] | None = None) -> OpenClip:
    """An open_clip repository with the tokenizer beside it, and the model that it holds."""
    other = other_clip(make_clip(act))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(other.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(described(act) if config is None else config))
    make_processor().tokenizer.save_pretrained(folder)
    return other


def base_folder(folder: Path, act: str = "quick_gelu") -> Path:
    """A CLIP of transformers with its processor."""
    make_clip(act).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


def saved(content: Any, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file
