"""Small random models of the families that open_clip alone can build, in folders as it pushes them."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import GemmaTokenizer, T5Tokenizer

from support.tiny import WORDS

# What makes timm's towers small. The names in descriptions stay those of published models.
SMALL_TOWERS = {
    "vit_base_patch16_siglip_224": dict(img_size=32, embed_dim=32, depth=1, num_heads=2),
    "eva02_base_patch16_clip_224": dict(img_size=32, embed_dim=32, depth=1, num_heads=2),
    "vit_pe_core_base_patch16_224": dict(img_size=32, embed_dim=64, depth=1, num_heads=2),
    "convnext_base": dict(depths=(1, 1, 1, 1), dims=(8, 16, 16, 32)),
    "fastvit_mci0": dict(layers=(1, 1, 1, 1), embed_dims=(16, 16, 16, 32)),
}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
# Words of T5's and Gemma's kind; a space is one before a word.
PIECES = ["▁", *(f"▁{word}" for word in WORDS)]


def timm_tower(name: str, **values: Any) -> dict[str, Any]:
    return {"image_size": 32, "timm_model_name": name, "timm_model_pretrained": False, **values}


def siglip(named: str, **text: Any) -> dict[str, Any]:
    """SigLIP, whose vocabulary is one of the Hub."""
    text_cfg = {**TEXT, "vocab_size": 128, "hf_tokenizer_name": named, "no_causal_mask": True}
    text_cfg |= {"tokenizer_kwargs": {"clean": "canonicalize"}, "proj_bias": True, "pool_type": "last"}
    return {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": timm_tower("vit_base_patch16_siglip_224", timm_pool="map", timm_proj="none"),
        "text_cfg": {**text_cfg, "norm_kwargs": {"eps": 1e-6}, **text},
    }


def of_timm(tower: dict[str, Any], **text: Any) -> dict[str, Any]:
    return {"embed_dim": 48, "custom_text": True, "vision_cfg": tower, "text_cfg": {**TEXT, **text}}


FAMILIES: dict[str, dict[str, Any]] = {
    "SigLIP": siglip("timm/ViT-B-16-SigLIP"),
    "SigLIP 2": siglip("timm/ViT-B-16-SigLIP2", act_kwargs={"approximate": "tanh"}),
    "CoCa": {
        "embed_dim": 48,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
        | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        "text_cfg": {**TEXT, "context_length": 23, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "context_length": 23, "attn_pooler_heads": 4},
    },
    "ConvNeXt": of_timm(timm_tower("convnext_base", timm_pool="", timm_proj="linear", timm_drop_path=0.1)),
    "EVA-02": of_timm(timm_tower("eva02_base_patch16_clip_224", timm_pool="token", timm_proj=None)),
    "MobileCLIP": of_timm(timm_tower("fastvit_mci0", timm_pool="avg", timm_proj=None), no_causal_mask=True),
    "Perception Encoder": of_timm(timm_tower("vit_pe_core_base_patch16_224", timm_pool="map", timm_proj=None)),
    "ResNet": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
}
# Statistics and resizing as the families are published
HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
PREPROCESS = {
    "SigLIP": HALVES,
    "SigLIP 2": HALVES,
    "MobileCLIP": {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear", "resize_mode": "shortest"},
}


def make_timm_small(monkeypatch: Any) -> None:
    """Has timm build the towers of `SMALL_TOWERS` small."""
    import timm

    build = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **values: build(name, **SMALL_TOWERS[name], **values))


def save_tokenizer(family: str, folder: Path) -> None:
    """Writes the tokenizer of a SigLIP; the other families have CLIP's own vocabulary."""
    if family == "SigLIP":
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -2.0) for piece in PIECES)]
        T5Tokenizer(vocab=pieces, extra_ids=0, pad_token="</s>").save_pretrained(folder)
    if family == "SigLIP 2":
        # Merges build each word from its left.
        merges = dict.fromkeys((piece[:end], piece[end]) for piece in PIECES for end in range(1, len(piece)))
        pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *sorted({*"".join(PIECES), *map("".join, merges)})]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = GemmaTokenizer(vocab=vocabulary, merges=list(merges), padding_side="right")
        tokenizer.save_pretrained(folder)


def push(family: str, folder: Path) -> nn.Module:
    """Writes a model of `FAMILIES` with random weights as open_clip pushes it, and returns open_clip's own."""
    import open_clip

    model_cfg = copy.deepcopy(FAMILIES[family])
    built = {key: value for key, value in copy.deepcopy(model_cfg).items() if key != "custom_text"}
    kind = open_clip.CoCa if "multimodal_cfg" in built else open_clip.CustomTextCLIP
    torch.manual_seed(0)
    model = (kind if model_cfg.get("custom_text") else open_clip.CLIP)(**built).eval()
    if "multimodal_cfg" in built:
        nn.init.normal_(model.text_decoder.text_projection)  # which open_clip leaves as the memory was

    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESS.get(family, {})}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_tokenizer(family, folder)
    return model
