"""Class names and templates, or captions, to text embeddings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from ..models.backbones import get_backbone, unwrap
from ..models.processors import tokenizer_of
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_class_names, check_prompt_templates, prompt_name
from ..tuning.base import attachment


@dataclass(frozen=True)
class ClassPrompts:
    """Tokenised prompts of K classes by T templates.

    Args:
        input_ids, attention_mask (`torch.Tensor`): `[K*T, L]`, int64; those of a class follow each other.
        num_templates (`int`): T.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    num_templates: int

    @classmethod
    def of(
        cls, model: nn.Module, processor: Any, class_names: Sequence[str], prompt_templates: str | Sequence[str]
    ) -> ClassPrompts:
        """The prompts of class names; a model with learned context gets its places for it instead of a template."""
        names = [prompt_name(name) for name in check_class_names(class_names)]
        templates, tokenizer = check_prompt_templates(prompt_templates), tokenizer_of(processor)
        added = attachment(unwrap(model))
        learned = added.num_text_tokens if added is not None and added.enabled else 0
        if learned:
            added.check_classes(names)
            templates = ["{}."]
        prompts = [template.format(name) for name in names for template in templates]
        ids, mask = tokenize(model, tokenizer, prompts, truncation=not learned)
        if learned:
            ids, mask = (torch.cat([x[:, :1].expand(-1, 1 + learned), x[:, 1:]], dim=1) for x in (ids, mask))
            places = get_backbone(unwrap(model)).text_positions(model)
            if ids.shape[1] > places:
                longest = max(names, key=len)
                raise ValueError(
                    f"The model learned {learned} tokens of context, with which class names as long as {longest!r} "
                    f"take {ids.shape[1]} of its {places} text positions. Train with num_tokens="
                    f"{learned - ids.shape[1] + places} or fewer, or shorten the names."
                )
        return cls(ids, mask, len(templates))

    @classmethod
    def of_captions(
        cls, model: nn.Module, processor: Any, captions: Sequence[str], prompt_templates: Sequence[str]
    ) -> ClassPrompts:
        """Captions as prompts, to the letter; what is longer than the tokenizer's `model_max_length` is cut."""
        prompts = [template.format(text) for text in captions for template in prompt_templates]
        return cls(*tokenize(model, tokenizer_of(processor), prompts), len(prompt_templates))

    def to(self, device: torch.device) -> ClassPrompts:
        """The same prompts on a device."""
        return replace(self, input_ids=self.input_ids.to(device), attention_mask=self.attention_mask.to(device))

    def embed(self, model: nn.Module, batch_size: int | None = None) -> torch.Tensor:
        """Class embeddings `[K,D]`, float32, unit norm; with a gradient to what of the text side is trained.

        Args:
            model: Wrapped or not.
            batch_size (`int`, *optional*): Prompts at once, cut to the longest of them; all if not given.
        """
        backbone, device, embeds = get_backbone(unwrap(model)), next(model.parameters()).device, []
        for start in range(0, len(self.input_ids), batch_size or len(self.input_ids)):
            part = slice(start, None if batch_size is None else start + batch_size)
            # All of them are padded to the longest already.
            length = None if batch_size is None else int(self.attention_mask[part].sum(1).max())
            ids, mask = (x[part, :length].to(device) for x in (self.input_ids, self.attention_mask))
            embeds.append(F.normalize(backbone.text_embeds(model, ids, mask).float(), dim=-1))
        mean = torch.cat(embeds).unflatten(0, (-1, self.num_templates)).mean(dim=1)
        return F.normalize(mean, dim=-1)


def check_takes_captions(model: nn.Module) -> None:
    """Raises `ValueError` for a model whose learned prompts leave no place for captions."""
    added = attachment(unwrap(model))
    if added is not None and added.enabled and not added.takes_captions:
        raise ValueError(
            "You passed captions with a model that learned prompts for class names, which have no place in captions. "
            "Pass a model whose tuning takes captions, such as a plain one."
        )


def tokenize(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], truncation: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, `[N,L]`, padded to the longest text, or to the length of the model's family."""
    backbone = get_backbone(unwrap(model))
    length = {"padding": True}
    if backbone.full_text:
        length = {"padding": "max_length", "max_length": backbone.text_positions(model)}
    tokens = tokenizer(list(texts), **length, truncation=truncation, return_tensors="pt", return_attention_mask=True)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    return ids, torch.ones_like(ids) if backbone.full_text else mask


@torch.no_grad()
def encode_class_names(
    model: nn.Module,
    processor: Any,
    class_names: Sequence[str],
    prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
    batch_size: int = 256,
) -> torch.Tensor:
    """Class embeddings of the zero-shot head (CLIP, arXiv 2103.00020, section 3.1.4).

    The text embedding of each template is normalised, the mean over templates taken and normalised again. Context that
    was learned stands in place of the templates.

    Args:
        model (dual encoder or PEFT model): Its text tower is run once over all prompts.
        processor (`CLIPProcessor` or tokenizer): Tokenizes the prompts; they are padded to the longest of a batch.
        class_names (`list[str]`): K names, distinct and not empty.
        prompt_templates (`str` or `list[str]`): Each with one `{}`.

    Returns:
        `torch.Tensor`: `[K, D]`, float32, unit norm, on the model's device.
    """
    prompts = ClassPrompts.of(model, processor, class_names, prompt_templates)
    return encode_prompts(model, prompts, batch_size)


@torch.no_grad()
def encode_prompts(model: nn.Module, prompts: ClassPrompts, batch_size: int = 256) -> torch.Tensor:
    """Embeddings of prompts, `[K,D]`, float32, unit norm, by the text tower in eval mode, `batch_size` at once."""
    training = model.training
    model.eval()
    added = attachment(unwrap(model))
    whole = added is not None and added.enabled and added.num_text_tokens  # vectors of each class fit the whole list
    embeds = prompts.embed(model, None if whole else batch_size)
    model.train(training)
    return embeds


def export_class_embeds(
    model: nn.Module,
    processor: Any,
    class_names: Sequence[str],
    file: str | os.PathLike,
    prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
) -> torch.Tensor:
    """Writes the class embeddings `[K,D]` of a class list as safetensors, with the names as its metadata.

    With them and the base model's image features a learned prompt serves without this package.
    """
    embeds = encode_class_names(model, processor, class_names, prompt_templates).cpu()
    save_file({"class_embeds": embeds}, file, metadata={"class_names": json.dumps(list(class_names))})
    return embeds
