"""Checkpoints of open_clip, read and written: published FARE and TeCoA weights as a `CLIPModel`, and back.

Models are plain here: what was trained beside their weights is folded in before.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel
from transformers.utils import cached_file

from ..files import save_tensors
from .weights import mismatches, read_weights

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

CLIP_VOCABULARY = 49408

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # as open_clip looks for them
FILE_TYPES = (".pt", ".pth", ".tar", ".bin", ".safetensors")


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
    weights = read_weights(_find_file(checkpoint))

    # Whose names the file has, ours or open_clip's, and how those of a vision tower begin
    if any(name.startswith(("vision_model.", "embeddings.")) for name in weights):
        expected = base.state_dict()
        names = {name: (name,) for name in expected}
        vision: str | tuple[str, ...] = ("vision_model.", "visual_projection.")
        prefix = "vision_model."
    else:
        expected = open_clip_weights(base)
        names = open_clip_names(base.config)
        vision = prefix = "visual."
    if any(name.startswith(vision) for name in weights):
        prefix = ""  # the vision tower's own file leaves it out

    # What a file of the vision tower alone should hold
    if prefix or all(name.startswith(vision) for name in weights):
        expected = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(vision)}
    differing = mismatches(expected, weights)
    if differing:
        raise ValueError(
            f"{checkpoint} does not fit {base.config.name_or_path or 'the base model'}: {differing}. "
            "Pass as base the model that the checkpoint was trained from."
        )

    model = copy.deepcopy(base)
    # Not strict, since the text tower may be the base's; no name is lost, for they were compared in the file's terms.
    model.load_state_dict(_in_transformers_names(weights, names, prefix), strict=False)
    return model.eval()


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
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    processor.tokenizer.save_pretrained(folder)


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


def open_clip_config(config: CLIPConfig, processor: Any) -> dict[str, Any]:
    """Describes a model and its processor as open_clip's `CLIP` and its transform are built.

    Raises:
        ValueError: for towers with other activations than open_clip has, or with two different ones.

    Example:
        >>> open_clip_config(model.config, processor)["model_cfg"]["vision_cfg"]["patch_size"]
        4
    """
    vision = config.vision_config
    text = config.text_config
    if {vision.hidden_act, text.hidden_act} not in ({"gelu"}, {"quick_gelu"}):
        raise ValueError(
            f"You passed a model whose towers have the activations {vision.hidden_act} and {text.hidden_act}, but "
            "open_clip's CLIP has one for both, gelu or quick_gelu. Pass a model of which that is true."
        )

    image_processor = processor.image_processor
    return {
        "model_cfg": {
            "embed_dim": config.projection_dim,
            "quick_gelu": vision.hidden_act == "quick_gelu",
            "vision_cfg": {
                **_tower_config(vision),
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "head_width": vision.hidden_size // vision.num_attention_heads,
            },
            "text_cfg": {
                **_tower_config(text),
                "heads": text.num_attention_heads,
                "context_length": text.max_position_embeddings,
                "vocab_size": text.vocab_size,
                **_pooling(text),
                # open_clip has CLIP's own; with another name than "" it reads the one in a local folder.
                **({} if text.vocab_size == CLIP_VOCABULARY else {"hf_tokenizer_name": "local"}),
            },
        },
        "preprocess_cfg": {
            "mean": list(image_processor.image_mean),
            "std": list(image_processor.image_std),
            "interpolation": {2: "bilinear", 3: "bicubic"}[int(image_processor.resample)],
            "resize_mode": "shortest" if dict(image_processor.size).get("shortest_edge") else "squash",
        },
    }


def _tower_config(config: Any) -> dict[str, Any]:
    width = config.hidden_size
    inner = config.intermediate_size
    return {
        "layers": config.num_hidden_layers,
        "width": width,
        # open_clip cuts width * mlp_ratio down to an integer.
        "mlp_ratio": (inner + 0.5) / width if inner % width else inner / width,
        "norm_kwargs": {"eps": config.layer_norm_eps},
    }


def _pooling(config: Any) -> dict[str, Any]:
    # open_clip pools at the highest id unless told otherwise; transformers does where old configurations say 2.
    highest = config.eos_token_id in (2, config.vocab_size - 1)
    return {} if highest else {"pool_type": "eos", "eos_id": config.eos_token_id}


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


def _find_file(checkpoint: str | os.PathLike) -> str:
    if Path(checkpoint).is_file():
        return str(checkpoint)
    if Path(checkpoint).suffix not in FILE_TYPES:  # no model of the Hub is named so
        for name in WEIGHTS:
            file = cached_file(str(checkpoint), name, _raise_exceptions_for_missing_entries=False)
            if file is not None:
                return file
    raise FileNotFoundError(f"{checkpoint} is no file, nor does it hold {' or '.join(WEIGHTS)}. Pass the file.")
