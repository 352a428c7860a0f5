"""Learned tokens among those of a text, which prompt tunings of either kind are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from ..models.backbones import unwrap
from .base import ONLY_IF_SET, Attachment, Tuning, check_at_least_one

Prompts = TypeVar("Prompts", bound="PromptTuning")


@dataclass
class PromptTuning(Tuning):
    """Learned tokens before the class name, which begin at random or as words.

    Args:
        num_tokens (`int`, *optional*): How many; that of the words, or the tuning's own default.
        context_words (`str`, *optional*): Words such as `"a photo of a"`, from whose token embeddings they begin.
        context_ids (`list[int]`, *optional*): The token ids of these words, which training fills in.
        full_stop (`bool`): Whether a full stop follows the class name.

    Example:
        >>> from hf_pmgaft.tuning import TextContext
        >>> TextContext(context_words="a photo of the").for_tokenizer(processor.tokenizer).num_tokens
        4
    """

    num_tokens: int | None = None
    context_words: str | None = field(default=None, kw_only=True, metadata={ONLY_IF_SET: True})
    context_ids: list | None = field(default=None, kw_only=True, metadata={ONLY_IF_SET: True})
    full_stop: bool = field(default=True, kw_only=True, metadata={ONLY_IF_SET: True})

    DEFAULT_TOKENS: ClassVar[int]

    def __post_init__(self):
        if self.num_tokens is None and self.context_words is None:
            self.num_tokens = self.DEFAULT_TOKENS
        if self.num_tokens is not None:
            check_at_least_one(self, "num_tokens")

    def for_tokenizer(self: Prompts, tokenizer: Any) -> Prompts:
        if self.context_words is None:
            return self
        ids = tokenizer(self.context_words, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ValueError(f"You passed context_words={self.context_words!r}, which are no tokens. Pass words.")
        if self.num_tokens not in (None, len(ids)):
            raise ValueError(
                f"You passed num_tokens={self.num_tokens} and context_words={self.context_words!r}, which are "
                f"{len(ids)} tokens. Leave num_tokens out, or pass as many words."
            )
        return replace(self, num_tokens=len(ids), context_ids=list(ids))

    def check_is_ready(self) -> None:
        """Raises `ValueError` if there are words whose tokens are not known yet."""
        if self.context_words is not None and self.context_ids is None:
            raise ValueError(
                f"You passed context_words={self.context_words!r}, which a tokenizer has to read first. Prepare the "
                "model with `tuning.for_tokenizer(tokenizer)`."
            )

    def describe_prompts(self) -> str:
        """What begins how, for the model card."""
        start = "" if self.context_words is None else f" that began as {self.context_words!r}"
        return start if self.full_stop else f"{start}, no full stop"


class TokenVectors(nn.Module):
    """Learned vectors of any shape, drawn from N(0, 0.02^2): `() -> [*shape]`.

    Engines may gather the parameter, since it comes out of a module's own pass.

    Example:
        >>> TokenVectors(4, 16)().shape
        torch.Size([4, 16])
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(shape))

    def begin_at(self, values: torch.Tensor) -> None:
        """Sets the vectors to values that can be expanded to their shape."""
        self.weight.data.copy_(values)

    def forward(self) -> torch.Tensor:
        # The view keeps DDP's and FSDP's hooks on the module's output off the parameter itself.
        return self.weight.view_as(self.weight)


def embeddings_of_words(model: nn.Module, tuning: PromptTuning) -> torch.Tensor:
    """The token embeddings `[M,d]` of the words that a tuning's tokens begin as."""
    embeddings = model.text_model.embeddings.token_embedding.weight
    return embeddings[torch.tensor(tuning.context_ids, device=embeddings.device)].detach()


def has_room(attachment: Attachment, hidden: torch.Tensor) -> bool:
    """Whether text `[N,L,d]` has room for the learned tokens: the two-token text of image passes has none."""
    return attachment.enabled and hidden.shape[1] > 1 + attachment.num_text_tokens


def insert_text_tokens(hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Puts learned tokens, `[M,d]` or `[N,M,d]`, in the M places after the start token of a text `[N,L,d]`.

    Example:
        >>> insert_text_tokens(torch.zeros(1, 5, 1), torch.ones(2, 1)).flatten().tolist()
        [0.0, 1.0, 1.0, 0.0, 0.0]
    """
    tokens = tokens.to(hidden.dtype).expand(len(hidden), *tokens.shape[-2:])
    return torch.cat([hidden[:, :1], tokens, hidden[:, 1 + tokens.shape[1] :]], dim=1)


@contextlib.contextmanager
def with_text_tokens(model: nn.Module, tokens: torch.Tensor) -> Iterator[None]:
    """Puts tokens, as of [`insert_text_tokens`], into all texts of a model for a while, with a gradient to them.

    Example:
        >>> ids = torch.tensor([[0, 0, 0, 9, 1]])
        >>> tokens = torch.zeros(2, 16, requires_grad=True)
        >>> with with_text_tokens(model, tokens):
        ...     embeds = model.get_text_features(ids).pooler_output
        >>> bool(torch.autograd.grad(embeds.sum(), tokens)[0].any())
        True
    """
    embedding = unwrap(model).text_model.embeddings.token_embedding
    hook = embedding.register_forward_hook(lambda module, args, output: insert_text_tokens(output, tokens))
    try:
        yield
    finally:
        hook.remove()
