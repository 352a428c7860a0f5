"""Tiny LLaVAs, and a CLIP whose tower was tuned for them."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from hf_pmgaft.data import read_image
from support.tiny import make_model


def equal_weights(one: nn.Module, two: nn.Module, prefix: str = "") -> bool:
    first, second = one.state_dict(), two.state_dict()
    names = [name for name in first if name.startswith(prefix)]
    return bool(names) and all(torch.equal(first[name], second[name]) for name in names)


def make_llava(dtype: torch.dtype = torch.float32, **changes) -> LlavaForConditionalGeneration:
    torch.manual_seed(3)
    vision = {**make_model().config.vision_config.to_dict(), **changes.pop("vision", {})}
    text = dict(hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision), text_config=LlamaConfig(**text), image_token_index=39, **changes
    )
    return LlavaForConditionalGeneration(config).eval().to(dtype)


def pixels_of(llava, rows) -> torch.Tensor:
    """Images `[N,3,40,40]` in [0,1]."""
    options = {"images": [read_image(row["image"]) for row in rows], "do_normalize": False, "return_tensors": "pt"}
    return torch.as_tensor(llava.processor.image_processor(**options)["pixel_values"])


def tuned_by_lora() -> nn.Module:
    torch.manual_seed(5)
    config = LoraConfig(r=2, target_modules=r"vision_model\..*\.(q_proj|fc1)", init_lora_weights=False)
    return get_peft_model(make_model(), config).eval()
