"""Checkpoints of open_clip, read and written: published FARE and TeCoA weights as a `CLIPModel`, and back.

Models are plain here: what was trained beside their weights is folded in before.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from ..files import save_tensors, write_whole
from .open_clip_config import (
    CONFIG,
    check_base_fits,
    check_clip_holds,
    clip_config,
    open_clip_config,
    read_open_clip_config,
)
from .processors import save_processor
from .sources import Source
from .weights import check_finite, mismatches, read_weights

# open_clip's names of weights, and those of transformers.
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TRANSPOSED = ("visual.proj", "text_projection")  # open_clip multiplies from the right
CUSTOM_TEXT = "text."  # before the names of a text tower that open_clip keeps apart
TEXT_TABLES = ("token_embedding.", "text.", "text_model.")

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # as open_clip looks for them


def read_open_clip(checkpoint: str | os.PathLike, base: CLIPModel) -> CLIPModel:
    """Reads a published checkpoint into a copy of the model that it was made from.

    It reads what open_clip saves, whole or of the vision tower alone (TeCoA, arXiv 2212.07016, and what grew out of
    its code: under `vision_encoder_state_dict`; FARE, arXiv 2402.12336: bare), and the names of transformers, whole or
    of a vision tower with its projection. Pickles are read with `weights_only=True`.

    Args:
        checkpoint (`str` or `PathLike`): A `.pt`, `.pth.tar`, `.bin` or `.safetensors` file, or the folder or Hub id
            of what open_clip pushes.
        base (`CLIPModel`): The model that was made robust; left as it is. It gives
            what the checkpoint does not hold: the configuration, its activation included (`quick_gelu` for OpenAI's
            models), and the text tower where the checkpoint has none.

    Raises:
        OSError: if there is no such file.
        ValueError: if the file holds more than weights, or weights are missing, unexpected or of other shapes than in
            `base`; the message names them.

    Example:
        >>> torch.save(model.state_dict(), "robust.pt")
        >>> robust = read_open_clip("robust.pt", base=model)
        >>> torch.equal(robust.visual_projection.weight, model.visual_projection.weight)
        True
    """
    source = Source.of(checkpoint)
    file = find_weights(source)
    if file is None:
        raise FileNotFoundError(f"{checkpoint} is no file, nor does it hold {' or '.join(WEIGHTS)}. Pass the file.")
    config_file = source.find(CONFIG)
    if config_file is not None:
        model_cfg = read_open_clip_config(config_file)["model_cfg"]
        check_clip_holds(model_cfg, config_file)
        check_base_fits(clip_config(model_cfg), base.config, str(source))

    model = copy.deepcopy(base)
    load_weights(model, read_weights(file), str(source))
    model.name_or_path = model.config.name_or_path = source.name
    check_finite(model, str(source))
    return model.eval()


def find_weights(source: Source) -> str | None:
    """The file of weights that a name leads to: itself, or one of open_clip in a folder or repository.

    Example:
        >>> write_open_clip(model, processor, "robust")
        >>> find_weights(Source.of("robust"))
        'robust/open_clip_model.safetensors'
    """
    if source.is_file:
        return source.name
    return next((file for file in map(source.find, WEIGHTS) if file is not None), None)


def is_vision_tower(weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether weights are those of an image tower alone, by whichever names.

    Example:
        >>> is_vision_tower(open_clip_weights(model)), is_vision_tower(model.vision_model.state_dict())
        (False, True)
    """
    return not any(name.startswith(TEXT_TABLES) for name in weights)


def load_weights(model: CLIPModel, weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Puts weights by open_clip's names or ours, of both towers or the vision tower alone, into a model.

    Raises:
        ValueError: if they are others than the model's, by name, shape or type.

    Example:
        >>> load_weights(model, open_clip_weights(model), "itself")
    """
    # Whose names the file has, ours or open_clip's, and how those of a vision tower begin
    if any(key.startswith(("vision_model.", "embeddings.")) for key in weights):
        expected = model.state_dict()
        names = {key: (key,) for key in expected}
        vision: str | tuple[str, ...] = ("vision_model.", "visual_projection.")
        prefix = "vision_model."
    else:
        weights = {key.removeprefix(CUSTOM_TEXT): value for key, value in weights.items()}
        expected = open_clip_weights(model)
        names = open_clip_names(model.config)
        vision = prefix = "visual."
    if any(key.startswith(vision) for key in weights):
        prefix = ""  # the vision tower's own file leaves it out

    # What a file of the vision tower alone should hold
    if prefix or all(key.startswith(vision) for key in weights):
        expected = {key.removeprefix(prefix): value for key, value in expected.items() if key.startswith(vision)}
    differing = mismatches(expected, weights)
    if differing:
        raise ValueError(
            f"{name} does not fit {model.config.name_or_path or 'the base model'}: {differing}. "
            f"{_advice(expected, weights)}"
        )
    # Not strict, since the text tower may be the base's; no name is lost, for they were compared in the file's terms.
    model.load_state_dict(_in_transformers_names(weights, names, prefix), strict=False)


def open_clip_weights(model: CLIPModel) -> dict[str, torch.Tensor]:
    """Returns the weights of a model under open_clip's names; as in a `state_dict`, they may share its memory.

    Example:
        >>> open_clip_weights(model)["visual.proj"].shape
        torch.Size([32, 24])
    """
    state = model.state_dict()
    weights = {}
    for name, sources in open_clip_names(model.config).items():
        value = state[sources[0]]
        if len(sources) > 1:
            value = torch.cat([state[source] for source in sources])
        weights[name] = value.T.contiguous() if name in TRANSPOSED else value
    return weights


def write_open_clip(model: CLIPModel, processor: Any, folder: str | os.PathLike) -> None:
    """Writes weights, configuration and tokenizer as open_clip reads them from a folder.

    Example:
        >>> model.config.vision_config.hidden_act, model.config.text_config.hidden_act
        ('quick_gelu', 'quick_gelu')
        >>> write_open_clip(model, processor, "robust")
        >>> sorted(os.listdir("robust"))[:2]
        ['open_clip_config.json', 'open_clip_model.safetensors']
    """
    folder = Path(folder)
    config = open_clip_config(model.config, processor)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(open_clip_weights(model), folder / WEIGHTS[0])
    write_whole(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    save_processor(processor.tokenizer, folder)


def open_clip_names(config: CLIPConfig) -> dict[str, tuple[str, ...]]:
    """Maps open_clip's name of each weight to ours: three of them for query, key and value in one matrix.

    Example:
        >>> open_clip_names(model.config)["visual.proj"]
        ('visual_projection.weight',)
    """
    names = {theirs: (ours,) for theirs, ours in NAMES.items()}
    towers = [("visual.", "vision_model", config.vision_config), ("", "text_model", config.text_config)]
    for prefix, tower, tower_config in towers:
        for layer in range(tower_config.num_hidden_layers):
            their_block = f"{prefix}transformer.resblocks.{layer}"
            our_block = f"{tower}.encoder.layers.{layer}"
            for kind in ("weight", "bias"):
                for theirs, ours in BLOCK_NAMES.items():
                    names[f"{their_block}.{theirs}.{kind}"] = (f"{our_block}.{ours}.{kind}",)
                names[f"{their_block}.attn.in_proj_{kind}"] = tuple(
                    f"{our_block}.self_attn.{projection}_proj.{kind}" for projection in "qkv"
                )
    return names


def _in_transformers_names(
    weights: Mapping[str, torch.Tensor], names: Mapping[str, tuple[str, ...]], prefix: str
) -> dict[str, torch.Tensor]:
    """The weights of a file, whose names leave out `prefix`, under the names of transformers."""
    renamed = {}
    for name, value in weights.items():
        targets = names[prefix + name]
        if prefix + name in TRANSPOSED:
            value = value.T
        if len(targets) == 1:
            renamed[targets[0]] = value
        else:
            renamed.update(zip(targets, value.chunk(len(targets)), strict=True))
    return renamed


def _advice(expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> str:
    """What to do about weights that do not fit: bases differ in sizes and numbers of blocks alone."""
    if _kinds(expected) == _kinds(weights):
        return "Pass as base the model that the checkpoint was trained from."
    if _kinds(weights) < _kinds(expected):
        return "Every base has them: have the whole model, or its vision tower with the projection, saved anew."
    return (
        "No base would fit, since a CLIPModel has other kinds of weights. What open_clip alone can build is evaluated "
        f"from a folder that holds its {CONFIG} and {WEIGHTS[0]}."
    )


def _kinds(weights: Mapping[str, torch.Tensor]) -> set[str]:
    return {re.sub(r"\d+", "N", name) for name in weights}
