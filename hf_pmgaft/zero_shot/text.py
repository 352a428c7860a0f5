"""Class names and templates, or captions, to text embeddings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..files import save_tensors
from ..models.backbones import get_backbone, get_encoder, unwrap
from ..models.processors import check_image_size, tokenizer_of
from ..models.tokens import check_is_tokenizer, check_tokens
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_class_names, check_prompt_templates, check_readable, prompt_name
from ..tuning.base import Attachment, attachment_of


@dataclass(frozen=True)
class ClassPrompts:
    """Tokenised prompts of K classes by T templates.

    Args:
        input_ids, attention_mask (`torch.Tensor`): `[K*T, L]`, int64; those of a class follow each other.
        num_templates (`int`): T.

    Example:
        >>> prompts = ClassPrompts.of(model, processor, class_names, ["a photo of the {}", "an image of the {}"])
        >>> prompts.input_ids.shape[0], prompts.embed(model).shape
        (8, torch.Size([4, 24]))
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
        templates = check_prompt_templates(prompt_templates)

        attachment = _prompting(model)
        if attachment is None:
            prompts = [template.format(name) for name in names for template in templates]
            ids, mask = tokenize(model, tokenizer_of(processor), prompts)
            check_texts_differ(names, ids, mask, len(templates))
            return cls(ids, mask, len(templates))

        attachment.check_classes(names)
        num_tokens = attachment.num_text_tokens
        placed = cls.behind_context(model, processor, names, num_tokens, attachment.full_stop)

        positions = get_backbone(unwrap(model)).text_positions(model)
        length = placed.input_ids.shape[1]
        if length > positions:
            longest = max(names, key=len)
            raise ValueError(
                f"The model learned {num_tokens} tokens of context, with which class names as long as {longest!r} "
                f"take {length} of its {positions} text positions. Train with num_tokens="
                f"{num_tokens - length + positions} or fewer, or shorten the names."
            )
        return placed

    @classmethod
    def behind_context(
        cls, model: nn.Module, processor: Any, class_names: Sequence[str], num_tokens: int, full_stop: bool = True
    ) -> ClassPrompts:
        """Class names, with full stops or not, behind places for tokens of context.

        They may take more than all positions.
        """
        end = "." if full_stop else ""
        prompts = [f"{name}{end}" for name in class_names]
        ids, mask = tokenize(model, tokenizer_of(processor), prompts, truncation=False)
        check_texts_differ(class_names, ids, mask, num_templates=1)
        return cls(_with_places(ids, num_tokens), _with_places(mask, num_tokens), num_templates=1)

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
        backbone = get_backbone(unwrap(model))
        device = next(model.parameters()).device

        embeds = []
        for ids, mask in self._batches(batch_size):
            texts = backbone.text_embeds(model, ids.to(device), mask.to(device))
            embeds.append(F.normalize(texts.float(), dim=-1))

        mean = torch.cat(embeds).unflatten(0, (-1, self.num_templates)).mean(dim=1)
        return F.normalize(mean, dim=-1)

    def _batches(self, batch_size: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Token ids and their mask, a batch after the other."""
        if batch_size is None:
            yield self.input_ids, self.attention_mask  # padded to the longest of all already
            return
        for start in range(0, len(self.input_ids), batch_size):
            rows = slice(start, start + batch_size)
            length = int(self.attention_mask[rows].sum(1).max())
            yield self.input_ids[rows, :length], self.attention_mask[rows, :length]


def _prompting(model: nn.Module) -> Attachment | None:
    """The attachment of a model, if it is there to put learned tokens before each class name."""
    attachment = attachment_of(model)
    if attachment is None or not attachment.enabled or not attachment.num_text_tokens:
        return None
    return attachment


def _with_places(values: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Token ids or their mask `[N,L]` with the start token repeated once for each learned token."""
    return torch.cat([values[:, :1].expand(-1, 1 + num_tokens), values[:, 1:]], dim=1)


def check_takes_captions(model: nn.Module) -> None:
    """Raises `ValueError` for a model whose learned prompts leave no place for captions."""
    attachment = attachment_of(model)
    if attachment is not None and attachment.enabled and not attachment.takes_captions:
        raise ValueError(
            "You passed captions with a model that learned prompts for class names, which have no place in captions. "
            "Pass a model whose tuning takes captions, such as a plain one."
        )


def tokenize(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], truncation: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Makes token ids and their mask, `[N,L]`, padded to the longest text, or to the length of the model's family.

    Raises:
        TypeError: for what is no tokenizer.
        ValueError: for a tokenizer of another model.

    Example:
        >>> ids, mask = tokenize(model, processor.tokenizer, ["red disc", "disc"])
        >>> ids.shape, mask.sum(dim=1).tolist()
        (torch.Size([2, 4]), [4, 3])
    """
    backbone = get_backbone(unwrap(model))
    check_is_tokenizer(tokenizer)
    positions = backbone.text_positions(model)
    length = positions if backbone.full_text else min(tokenizer.model_max_length, positions)
    tokens = tokenizer(
        list(texts),
        padding="max_length" if backbone.full_text else True,
        max_length=length if truncation or backbone.full_text else None,
        truncation=truncation,
        return_tensors="pt",
        return_attention_mask=True,
    )
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    check_tokens(model, ids, mask)
    return ids, torch.ones_like(ids) if backbone.full_text else mask


def check_fits(model: nn.Module, processor: Any) -> None:
    """Raises `ValueError` for a processor of another model, as far as image size and token ids tell.

    Example:
        >>> check_fits(model, processor)
    """
    plain = unwrap(model)
    check_image_size(processor, get_encoder(plain).image_size(plain))
    if hasattr(plain.config, "text_config"):
        tokenize(model, tokenizer_of(processor), ["a photo"])


def check_texts_differ(
    class_names: Sequence[str], input_ids: torch.Tensor, attention_mask: torch.Tensor, num_templates: int
) -> None:
    """Raises `ValueError` for two classes whose texts are the same token ids in every template.

    Args:
        class_names (`list[str]`): K names.
        input_ids, attention_mask (`torch.Tensor`): `[K*T,L]`, those of a class after each other.
        num_templates (`int`): T.

    Example:
        >>> ids = torch.tensor([[1, 5, 2], [1, 5, 2]])
        >>> check_texts_differ(["a long name", "a long noun"], ids, torch.ones_like(ids), num_templates=1)
        Traceback (most recent call last):
        ValueError: Classes 0 ('a long name') and 1 ('a long noun') are the same 3 tokens in every prompt template, ...
    """
    for number, earlier in enumerate(first_alike(input_ids, attention_mask, num_templates)):
        if earlier != number:
            raise ValueError(
                f"Classes {earlier} ({class_names[earlier]!r:.60}) and {number} ({class_names[number]!r:.60}) are the "
                f"same {input_ids.shape[1]} tokens in every prompt template, so no image could be told apart: longer "
                "texts are cut, and words outside the vocabulary may all be one token. Shorten or change the names "
                "or the template."
            )


def first_alike(input_ids: torch.Tensor, attention_mask: torch.Tensor, num_templates: int = 1) -> list[int]:
    """Gives for each of K texts the number of the first with the same token ids, which mostly is its own.

    Args:
        input_ids, attention_mask (`torch.Tensor`): `[K*T,L]`, the templates of a text after each other.
        num_templates (`int`): T.

    Example:
        >>> ids = torch.tensor([[1, 5, 2], [1, 6, 2], [1, 5, 2]])
        >>> first_alike(ids, torch.ones_like(ids))
        [0, 1, 0]
    """
    padded = input_ids.masked_fill(attention_mask == 0, -1)
    first: dict[bytes, int] = {}
    rows = padded.reshape(-1, num_templates * padded.shape[1])
    return [first.setdefault(tokens.cpu().numpy().tobytes(), number) for number, tokens in enumerate(rows)]


@torch.no_grad()
def encode_class_names(
    model: nn.Module,
    processor: Any,
    class_names: Sequence[str],
    prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
    batch_size: int = 256,
    accept_any_class_names: bool = False,
) -> torch.Tensor:
    """Encodes the class embeddings of the zero-shot head (CLIP, arXiv 2103.00020, section 3.1.4).

    The text embedding of each template is normalised, the mean over templates taken and normalised again. Context that
    was learned stands in place of the templates.

    Args:
        model (dual encoder or PEFT model): Its text tower is run once over all prompts.
        processor (`CLIPProcessor` or tokenizer): Tokenizes the prompts; they are padded to the longest of a batch.
        class_names (`list[str]`): K names, distinct and not empty.
        prompt_templates (`str` or `list[str]`): Each with one `{}`.
        batch_size (`int`): Prompts at once.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken.

    Returns:
        `torch.Tensor`: `[K, D]`, float32, unit norm, on the model's device.

    Example:
        >>> encode_class_names(model, processor, class_names, ["a photo of the {}", "an image of the {}"]).shape
        torch.Size([4, 24])
    """
    prompts = ClassPrompts.of(model, processor, class_names, prompt_templates)
    if not accept_any_class_names:
        check_readable(check_class_names(class_names))
    return encode_prompts(model, prompts, batch_size)


@torch.no_grad()
def encode_prompts(model: nn.Module, prompts: ClassPrompts, batch_size: int = 256) -> torch.Tensor:
    """Encodes prompts, `[K,D]`, float32, unit norm, by the text tower in eval mode, `batch_size` at once.

    Example:
        >>> prompts = ClassPrompts.of(model, processor, class_names, "a photo of the {}")
        >>> encode_prompts(model, prompts, batch_size=2).norm(dim=1).round().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    training = model.training
    model.eval()
    # Learned vectors of each class fit the whole list alone.
    embeds = prompts.embed(model, batch_size if _prompting(model) is None else None)
    model.train(training)
    return embeds


def export_class_embeds(
    model: nn.Module,
    processor: Any,
    class_names: Sequence[str],
    file: str | os.PathLike,
    prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
    accept_any_class_names: bool = False,
) -> torch.Tensor:
    """Writes the class embeddings `[K,D]` of a class list as safetensors, with the names as its metadata.

    With them and the base model's image features a learned prompt serves without this package.

    Example:
        >>> from safetensors import safe_open
        >>> embeds = export_class_embeds(model, processor, class_names, "classes.safetensors")
        >>> with safe_open("classes.safetensors", "pt") as file:
        ...     file.get_tensor("class_embeds").shape
        torch.Size([4, 24])
    """
    class_names = check_class_names(class_names)
    embeds = encode_class_names(
        model, processor, class_names, prompt_templates, accept_any_class_names=accept_any_class_names
    ).cpu()
    save_tensors({"class_embeds": embeds}, file, metadata={"class_names": json.dumps(class_names)})
    return embeds
