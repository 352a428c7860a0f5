"""Robust checkpoints in open_clip's format: those that others publish, and one's own."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import CLIPModel

from ..models.open_clip import open_clip_weights, read_open_clip, write_open_clip
from ..tuning import fold_into_clip
from ..tuning.saved import load_model


def load_open_clip(checkpoint: str | os.PathLike, base: CLIPModel | str) -> CLIPModel:
    """Opens a published checkpoint as a `CLIPModel`, to evaluate or to train on.

    It reads what open_clip saves, whole or of the vision tower alone (TeCoA, arXiv 2212.07016, and what grew out of
    its code: under `vision_encoder_state_dict`; FARE, arXiv 2402.12336: bare), and the names of transformers, whole or
    of a vision tower with its projection. Pickles are read with `weights_only=True`.

    Args:
        checkpoint (`str` or `PathLike`): A `.pt`, `.pth.tar`, `.bin` or `.safetensors` file, or the folder or Hub id
            of what open_clip pushes.
        base (`CLIPModel` or `str`): The model that was made robust, or its Hub id or folder; left as it is. It gives
            what the checkpoint does not hold: the configuration, its activation included (`quick_gelu` for OpenAI's
            models), and the text tower where the checkpoint has none.

    Raises:
        OSError: if there is no such file.
        ValueError: if the file holds more than weights, or weights are missing, unexpected or of other shapes than in
            `base`; the message names them.

    Example:
        >>> from hf_pmgaft import load_open_clip, save_open_clip
        >>> save_open_clip(model, processor, "robust-open-clip")
        >>> robust = load_open_clip("robust-open-clip", base=model)
        >>> type(robust).__name__
        'CLIPModel'
    """
    if isinstance(base, (str, os.PathLike)):
        base = load_model(base)
    return read_open_clip(checkpoint, _plain_clip(base))


def to_open_clip(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the weights of a `CLIPModel` under open_clip's names, with what was trained beside them folded in.

    As in a `state_dict`, they may share memory with the model. The `CLIP` of open_clip opens them with
    `load_state_dict`; its `quick_gelu` must be what the model's `hidden_act` says.

    Raises:
        TypeError: for another dual encoder.
        ValueError: for learned prompts, which do not fold.

    Example:
        >>> from hf_pmgaft import to_open_clip
        >>> weights = to_open_clip(model)
        >>> tuple(weights["visual.conv1.weight"].shape)
        (32, 3, 4, 4)
    """
    return open_clip_weights(_plain_clip(model))


def save_open_clip(model: torch.nn.Module, processor: Any, folder: str | os.PathLike) -> None:
    """Writes a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` opens, and its `get_tokenizer`.

    Args:
        model (`CLIPModel` or PEFT model): With equal activations in both towers.
        processor (`CLIPProcessor`): Its statistics, resizing and tokenizer are written beside the weights.
        folder (`str` or `PathLike`): Made if need be.

    Raises:
        TypeError: for another dual encoder.
        ValueError: for learned prompts, which do not fold, or two activations, which open_clip has no place for.

    Example:
        >>> from pathlib import Path
        >>> from hf_pmgaft import save_open_clip
        >>> save_open_clip(model, processor, "robust-open-clip")
        >>> (Path("robust-open-clip") / "open_clip_config.json").is_file()
        True
    """
    write_open_clip(_plain_clip(model), processor, folder)


def _plain_clip(model: torch.nn.Module) -> CLIPModel:
    model = fold_into_clip(model)
    if not isinstance(model, CLIPModel):
        raise TypeError(f"You passed a {type(model).__name__}, but open_clip's CLIP is a CLIPModel here. Pass one.")
    return model
