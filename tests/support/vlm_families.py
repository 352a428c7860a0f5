"""Tiny random vision-language models of every family, with processors made here; all but LLaVA need torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast

from support.paths import EMOJI

EDGE, PATCH = 16, 4  # of a tower's images
TOKENS = 4  # of an image or tile, where four patches make one
WIDTH = 24
CONTEXT = 512

QUESTIONS = ["describe it", "which group is it, the animal?"]

# What the families' own templates have in common: a beginning of the text, the image's place, a turn's end.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '\\n' }}{% endfor %}"
)
ROWS_AND_COLUMNS = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
OF_IDEFICS = ["<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *ROWS_AND_COLUMNS]


def make_vlm(kind: str) -> tuple[nn.Module, Any]:
    """A model in eval mode, with weights so large that it sees the image, and its processor."""
    make_config, make_processor = MAKERS[kind]
    processor = make_processor()
    if not processor.chat_template and kind != "paligemma":
        processor.chat_template = TEMPLATE.replace("IMAGE", processor.image_token)
    tokenizer = processor.tokenizer
    config = make_config(tokenizer, len(tokenizer), tokenizer.convert_tokens_to_ids)
    return make_random(config), processor


def family_or_skip(kind: str) -> tuple[nn.Module, Any]:
    """The same, where its libraries are installed."""
    if not kind.startswith("llava ") and kind != "llava":
        pytest.importorskip("torchvision")
    if kind == "smolvlm":
        pytest.importorskip("num2words")
    return make_vlm(kind)


def make_pictures(edge: int | None = None) -> torch.Tensor:
    """Two smooth pictures of 8 bits in [0,1], of a tower's edge or, as files have, of no multiple of anything."""
    height, width = (edge, edge) if edge else (20, 28)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = torch.stack([torch.sin(3 * x + y), torch.cos(2 * y - x), torch.sin(4 * x * y)])
    pictures = torch.stack([0.5 + 0.3 * waves, 0.5 + 0.3 * waves.flip(0, 2)])
    return (pictures * 255).round() / 255


def make_clip() -> nn.Module:
    """A CLIP whose tower fits those of the models on one."""
    text = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=_tower())).eval()


def make_siglip() -> nn.Module:
    """A SigLIP, which has a head that the models on one leave out."""
    text = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=_tower())).eval()


def as_file(image: torch.Tensor) -> Image.Image:
    """A picture in [0,1] as the file that holds it."""
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def make_random(config: Any) -> nn.Module:
    torch.manual_seed(3)
    model = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any():  # as the projector of a new Gemma 3
                parameter.normal_(std=0.02)
            if parameter.ndim > 1 and "embed_tokens" not in name:
                parameter.mul_(3)
    return model


def make_tokenizer(special: list[str] | None = None, begins: bool = True, **named: str) -> PreTrainedTokenizerFast:
    """The byte-level one of the embedded LLaVA, which gives back every text, with a family's tokens.

    Texts begin with a token of their own if `begins`, unless they are tokenized without special tokens.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMOJI / "llava", **named)
    tokens = [*named.values(), *(special or [])]
    tokenizer.add_special_tokens({"bos_token": "<bos>", "pad_token": "<pad>", "extra_special_tokens": tokens})
    tokenizer.model_max_length, tokenizer.chat_template = CONTEXT, None
    if begins:
        start = ("<bos>", tokenizer.bos_token_id)
        template = TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[start])
        tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


# ---- Parts of configurations ----


def clip_tower(**changes: Any) -> Any:
    return transformers.CLIPVisionConfig(**_tower(), **changes)


def siglip_tower(**changes: Any) -> Any:
    return transformers.SiglipVisionConfig(**_tower(), vision_use_head=False, **changes)


def _tower() -> dict[str, Any]:
    return dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=EDGE,
        patch_size=PATCH,
    )


def _text(tokenizer: Any, vocabulary: int, **changes: Any) -> dict[str, Any]:
    return dict(
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    )


def _qwen_text(tokenizer: Any, vocabulary: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}
    return _text(tokenizer, vocabulary, rope_parameters=rope)


# ---- Models ----


def _llava(tower: Callable[[], Any], **changes: Any) -> Callable[..., Any]:
    return lambda tokenizer, vocabulary, number: transformers.LlavaConfig(
        vision_config=tower(),
        text_config=transformers.LlamaConfig(**_text(tokenizer, vocabulary)),
        image_token_index=number("<image>"),
        **changes,
    )


def _paligemma(tokenizer: Any, vocabulary: int, number: Callable[[str], int]) -> Any:
    return transformers.PaliGemmaConfig(
        vision_config=siglip_tower(),
        text_config=transformers.GemmaConfig(**_text(tokenizer, vocabulary, head_dim=12)),
        image_token_index=number("<image>"),
        vocab_size=vocabulary,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )


def _gemma3(tokenizer: Any, vocabulary: int, number: Callable[[str], int]) -> Any:
    text = _text(tokenizer, vocabulary, head_dim=12, sliding_window=64, query_pre_attn_scalar=12)
    return transformers.Gemma3Config(
        vision_config=siglip_tower(),
        text_config=transformers.Gemma3TextConfig(**{**text, "num_hidden_layers": 2}, sliding_window_pattern=2),
        mm_tokens_per_image=TOKENS,
        boi_token_index=number("<boi>"),
        eoi_token_index=number("<eoi>"),
        image_token_index=number("<image>"),
    )


def _qwen(config: str, tower: dict[str, Any]) -> Callable[..., Any]:
    return lambda tokenizer, vocabulary, number: getattr(transformers, config)(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": PATCH, **tower},
        text_config=_qwen_text(tokenizer, vocabulary),
        image_token_id=number("<image>"),
        video_token_id=number("<video>"),
        vision_start_token_id=number("<boi>"),
        vision_end_token_id=number("<eoi>"),
    )


def _llava_next(tokenizer: Any, vocabulary: int, number: Callable[[str], int]) -> Any:
    return transformers.LlavaNextConfig(
        vision_config=clip_tower(),
        text_config=transformers.LlamaConfig(**_text(tokenizer, vocabulary)),
        image_token_index=number("<image>"),
        image_grid_pinpoints=PINPOINTS,
    )


def _llava_onevision(tokenizer: Any, vocabulary: int, number: Callable[[str], int]) -> Any:
    return transformers.LlavaOnevisionConfig(
        vision_config=siglip_tower(),
        text_config=transformers.Qwen2Config(**_text(tokenizer, vocabulary)),
        image_token_index=number("<image>"),
        video_token_index=number("<video>"),
        image_grid_pinpoints=PINPOINTS,
    )


def _internvl(tokenizer: Any, vocabulary: int, number: Callable[[str], int]) -> Any:
    return transformers.InternVLConfig(
        vision_config=_tower(),
        text_config=transformers.Qwen2Config(**_text(tokenizer, vocabulary)),
        image_token_id=number("<context>"),
        image_seq_length=TOKENS,
    )


def _idefics(config: str) -> Callable[..., Any]:
    return lambda tokenizer, vocabulary, number: getattr(transformers, config)(
        vision_config=_tower(),
        text_config=transformers.LlamaConfig(**_text(tokenizer, vocabulary)),
        image_token_id=number("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )


# ---- Processors ----

SQUARE = {"height": EDGE, "width": EDGE}
PINPOINTS = [[EDGE, 2 * EDGE], [2 * EDGE, EDGE], [2 * EDGE, 2 * EDGE]]


def _clip_processor() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(size={"shortest_edge": EDGE}, crop_size=SQUARE)
    return transformers.LlavaProcessor(
        images, make_tokenizer(image_token="<image>"), PATCH, "default", None, "<image>", 1
    )


def _siglip_processor() -> Any:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = make_tokenizer(image_token="<image>")
    return transformers.LlavaProcessor(SiglipImageProcessorPil(size=SQUARE), tokenizer, PATCH, "full")


def _paligemma_processor() -> Any:
    images = transformers.SiglipImageProcessor(size=SQUARE)
    images.image_seq_length = (EDGE // PATCH) ** 2
    return transformers.PaliGemmaProcessor(images, make_tokenizer(begins=False, image_token="<image>"))


def _gemma3_processor() -> Any:
    tokenizer = make_tokenizer(boi_token="<boi>", eoi_token="<eoi>", image_token="<image>")
    images = transformers.Gemma3ImageProcessor(size=SQUARE)
    return transformers.Gemma3Processor(images, tokenizer, image_seq_length=TOKENS)


def _qwen_processor(kind: str) -> Any:
    size = {"shortest_edge": 16 * PATCH**2, "longest_edge": 64 * PATCH**2}
    images = transformers.Qwen2VLImageProcessor(patch_size=PATCH, size=size)
    tokenizer = make_tokenizer(
        image_token="<image>", video_token="<video>", vision_start_token="<boi>", vision_end_token="<eoi>"
    )
    video = {"Qwen3VL": "Qwen3VLVideoProcessor"}.get(kind, "Qwen2VLVideoProcessor")
    return getattr(transformers, f"{kind}Processor")(images, tokenizer, getattr(transformers, video)())


def _llava_next_processor() -> Any:
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": EDGE}, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS
    )
    tokenizer = make_tokenizer(image_token="<image>")
    return transformers.LlavaNextProcessor(images, tokenizer, PATCH, "default", num_additional_image_tokens=1)


def _llava_onevision_processor() -> Any:
    return transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=PINPOINTS),
        make_tokenizer(image_token="<image>", video_token="<video>"),
        transformers.LlavaOnevisionVideoProcessor(),
        num_image_tokens=(EDGE // PATCH) ** 2,
        vision_feature_select_strategy="full",
    )


def _internvl_processor() -> Any:
    tokenizer = make_tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<context>", video_token="<video>"
    )
    return transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(size=SQUARE, max_patches=4),
        tokenizer,
        transformers.InternVLVideoProcessor(),
        image_seq_length=TOKENS,
    )


def _idefics3_processor() -> Any:
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 2 * EDGE}, max_image_size={"longest_edge": EDGE}
    )
    return transformers.Idefics3Processor(images, make_tokenizer(["<image>", *OF_IDEFICS]), image_seq_len=TOKENS)


def _smolvlm_processor() -> Any:
    return transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(size={"longest_edge": 2 * EDGE}, max_image_size={"longest_edge": EDGE}),
        make_tokenizer(OF_IDEFICS, image_token="<image>"),
        transformers.SmolVLMVideoProcessor(),
        image_seq_len=TOKENS,
    )


MAKERS: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "llava": (_llava(clip_tower), _clip_processor),
    "llava on siglip": (
        _llava(siglip_tower, vision_feature_select_strategy="full", vision_feature_layer=-1),
        _siglip_processor,
    ),
    "paligemma": (_paligemma, _paligemma_processor),
    "gemma3": (_gemma3, _gemma3_processor),
    "qwen2_vl": (
        _qwen("Qwen2VLConfig", {"embed_dim": 32, "hidden_size": WIDTH}),
        lambda: _qwen_processor("Qwen2VL"),
    ),
    "qwen2_5_vl": (
        _qwen(
            "Qwen2_5_VLConfig",
            {
                "hidden_size": 32,
                "intermediate_size": 64,
                "out_hidden_size": WIDTH,
                "window_size": 4 * PATCH,
                "fullatt_block_indexes": [1],
            },
        ),
        lambda: _qwen_processor("Qwen2_5_VL"),
    ),
    "qwen3_vl": (
        _qwen(
            "Qwen3VLConfig",
            {
                "hidden_size": 32,
                "intermediate_size": 64,
                "out_hidden_size": WIDTH,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
        ),
        lambda: _qwen_processor("Qwen3VL"),
    ),
    "llava_next": (_llava_next, _llava_next_processor),
    "llava_onevision": (_llava_onevision, _llava_onevision_processor),
    "internvl": (_internvl, _internvl_processor),
    "idefics3": (_idefics("Idefics3Config"), _idefics3_processor),
    "smolvlm": (_idefics("SmolVLMConfig"), _smolvlm_processor),
}
