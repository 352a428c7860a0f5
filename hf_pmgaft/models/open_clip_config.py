"""`open_clip_config.json`: what it says of a model and its images, in terms of transformers, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

CONFIG = "open_clip_config.json"
CLIP_VOCABULARY = 49408

# What open_clip takes where a file says nothing
VISION = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224}
TEXT = {"context_length": 77, "vocab_size": CLIP_VOCABULARY, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0}
# Keys that say nothing about what a model computes with its own weights, or nothing that a CLIPModel lacks
IDLE = {
    "model_cfg": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text", "init_logit_scale"},
    "vision_cfg": {*VISION, "norm_kwargs", "patch_dropout", "attn_pooler_queries", "attn_pooler_heads"},
    "text_cfg": {*TEXT, "norm_kwargs", "hf_tokenizer_name", "pad_id", "pool_type", "eos_id"},
}
IDLE["vision_cfg"] |= {"timm_pool", "timm_proj", "timm_model_pretrained", "timm_drop", "timm_drop_path"}
IDLE["text_cfg"] |= {"hf_model_pretrained", "hf_proj_type", "hf_pooler_type"}
# Values, other than nothing, that other keys may have in a CLIPModel
USUAL = {"pos_embed_type": ("learnable",), "pool_type": ("tok",), "proj_type": ("linear",), "block_type": ("default",)}
INTERPOLATIONS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def read_open_clip_config(file: str | os.PathLike) -> dict[str, Any]:
    """Reads the file, with empty dicts for the sections that it may leave out.

    Raises:
        ValueError: if it is damaged, or has no description of a model.

    Example:
        >>> from pathlib import Path
        >>> text = '{"model_cfg": {"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}}'
        >>> _ = Path("open_clip_config.json").write_text(text)
        >>> read_open_clip_config("open_clip_config.json")["preprocess_cfg"]
        {}
    """
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        model_cfg = config["model_cfg"]
        missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(model_cfg)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} describes no model of open_clip: it is no JSON, or has no model_cfg. Download it again."
        ) from error
    if missing:
        raise ValueError(f"{file} lacks {', '.join(sorted(missing))} in its model_cfg. Download it again.")
    sections = {**model_cfg, "preprocess_cfg": config.get("preprocess_cfg") or {}}
    for name in ("vision_cfg", "text_cfg", "preprocess_cfg"):
        if not isinstance(sections[name], dict):
            raise ValueError(f"{file} has {sections[name]!r:.40} as its {name}, not a section. Download it again.")
    return {"model_cfg": model_cfg, "preprocess_cfg": sections["preprocess_cfg"]}


def what_no_clip_holds(model_cfg: Mapping[str, Any]) -> list[str]:
    """Names what in a description of open_clip no `CLIPModel` can hold; nothing for the CLIPs that it can.

    Example:
        >>> model_cfg = {"embed_dim": 512, "vision_cfg": {"no_ln_pre": True}, "text_cfg": {}}
        >>> what_no_clip_holds(model_cfg)
        ['vision_cfg.no_ln_pre']
    """
    reasons = []
    for section, idle in IDLE.items():
        values = model_cfg if section == "model_cfg" else model_cfg[section]
        for key, value in values.items():
            if key not in idle and value and value not in USUAL.get(key, ()):
                reasons.append(key if section == "model_cfg" else f"{section}.{key}")

    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    if not isinstance(vision.get("layers", 12), int):
        reasons.append("vision_cfg.layers")  # of a ResNet
    if not isinstance(_edge(vision.get("image_size", 224)), int):
        reasons.append("vision_cfg.image_size")
    pool_type = text.get("pool_type", "argmax")
    if pool_type not in ("argmax", "eos") or (pool_type == "eos" and text.get("eos_id", 2) == 2):
        reasons.append("text_cfg.pool_type")
    for name, tower in (("vision_cfg", vision), ("text_cfg", text)):
        if set(tower.get("norm_kwargs") or {}) - {"eps"}:
            reasons.append(f"{name}.norm_kwargs")
    return reasons


def check_clip_holds(model_cfg: Mapping[str, Any], name: str) -> None:
    """Raises `ValueError` for a description of what no `CLIPModel` can hold, naming why.

    Example:
        >>> check_clip_holds({"embed_dim": 512, "vision_cfg": {}, "text_cfg": {"hf_model_name": "bert"}}, "model")
        Traceback (most recent call last):
        ValueError: model is no model that a CLIPModel can hold: text_cfg.hf_model_name. ...
    """
    reasons = what_no_clip_holds(model_cfg)
    if reasons:
        raise ValueError(
            f"{name} is no model that a CLIPModel can hold: {', '.join(reasons[:6])}. It can be evaluated as it is, "
            "with `pip install hf_pmgaft[zoo]`, but not trained, converted or used as a teacher."
        )


def clip_config(model_cfg: Mapping[str, Any]) -> CLIPConfig:
    """Describes in terms of transformers a model that a `CLIPModel` can hold.

    Example:
        >>> model_cfg = {"embed_dim": 512, "quick_gelu": True, "vision_cfg": {"patch_size": 32}, "text_cfg": {}}
        >>> config = clip_config(model_cfg)
        >>> config.vision_config.patch_size, config.text_config.hidden_act
        (32, 'quick_gelu')
    """
    vision = {**VISION, **model_cfg["vision_cfg"]}
    text = {**TEXT, **model_cfg["text_cfg"]}
    act = "quick_gelu" if model_cfg.get("quick_gelu") else "gelu"
    embed_dim = model_cfg["embed_dim"]

    config = CLIPConfig(
        vision_config={
            **_clip_tower(vision, act, embed_dim),
            "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": _edge(vision["image_size"]),
            "patch_size": _edge(vision["patch_size"]),
        },
        text_config={
            **_clip_tower(text, act, embed_dim),
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            # open_clip pools a text at its highest id unless told otherwise; transformers does where this is 2.
            "eos_token_id": text["eos_id"] if text.get("pool_type") == "eos" else 2,
        },
        projection_dim=embed_dim,
    )
    config.architectures = ["CLIPModel"]
    return config


def check_base_fits(config: CLIPConfig, base: CLIPConfig, name: str) -> None:
    """Raises `ValueError` for a base model of another architecture or activation than a description's.

    Example:
        >>> check_base_fits(model.config, model.config, "robust")
    """
    differing = []
    theirs, ours = _meaning(base), _meaning(config)
    for key, value in ours.items():
        if theirs[key] != value:
            differing.append(f"{key} is {theirs[key]}, not {value}")
    if differing:
        raise ValueError(
            f"You passed the base {base.name_or_path or 'model'} for {name}, whose {CONFIG} says otherwise: "
            f"{'; '.join(differing[:6])}. Pass the model that it was trained from, or none if it is whole."
        )


def image_processor_from(preprocess_cfg: Mapping[str, Any], image_size: int) -> CLIPImageProcessorPil:
    """Makes what prepares images as open_clip's own transform does, in Pillow as there.

    Raises:
        ValueError: for a transform that the processor of CLIP has not.

    Example:
        >>> image_processor_from({"resize_mode": "squash"}, 224).do_center_crop
        False
    """
    mode = preprocess_cfg.get("resize_mode", "shortest")
    interpolation = preprocess_cfg.get("interpolation", "bicubic")
    size = _edge(preprocess_cfg.get("size") or image_size)
    if mode not in ("shortest", "squash") or interpolation not in INTERPOLATIONS or size != image_size:
        raise ValueError(
            f"The preprocess_cfg in {CONFIG} asks for resize_mode {mode!r} with {interpolation!r} to {size} pixels "
            f"for a model of {image_size}, which no processor of CLIP does. Pass a processor with --processor, in "
            "Python processor=."
        )
    mean, std = preprocess_cfg.get("mean") or OPENAI_CLIP_MEAN, preprocess_cfg.get("std") or OPENAI_CLIP_STD
    square = {"height": size, "width": size}
    return CLIPImageProcessorPil(
        size={"shortest_edge": size} if mode == "shortest" else square,
        crop_size=square,
        do_center_crop=mode == "shortest",
        resample=INTERPOLATIONS[interpolation],
        image_mean=list(mean),
        image_std=list(std),
    )


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


def _clip_tower(tower: Mapping[str, Any], act: str, embed_dim: int) -> dict[str, Any]:
    return {
        "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
        "hidden_act": act,
        "layer_norm_eps": (tower.get("norm_kwargs") or {}).get("eps", 1e-5),
        "projection_dim": embed_dim,
    }


def _edge(size: Any) -> Any:
    """The edge of a square, which may be given twice."""
    if isinstance(size, (list, tuple)) and len(set(size)) == 1:
        return size[0]
    return size


def _meaning(config: CLIPConfig) -> dict[str, Any]:
    """What changes what equal weights compute, or their shapes, by names that a user may know."""
    meaning = {"embedding width": config.projection_dim, "text pooling": _pooling(config.text_config)}
    for name, tower in (("vision", config.vision_config), ("text", config.text_config)):
        meaning |= {
            f"{name} activation": tower.hidden_act,
            f"{name} width": tower.hidden_size,
            f"{name} inner width": tower.intermediate_size,
            f"{name} layers": tower.num_hidden_layers,
            f"{name} heads": tower.num_attention_heads,
            f"{name} epsilon": tower.layer_norm_eps,
        }
    return meaning | {
        "image size": config.vision_config.image_size,
        "patch size": config.vision_config.patch_size,
        "text length": config.text_config.max_position_embeddings,
        "vocabulary": config.text_config.vocab_size,
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
