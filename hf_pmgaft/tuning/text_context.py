"""Learned context before the class name, in place of a prompt template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..prompts import prompt_name
from .base import Attachment
from .prompt_tokens import PromptTuning, TokenVectors, embeddings_of_words, has_room, insert_text_tokens


@dataclass
class TextContext(PromptTuning):
    """Learned context before the class name, in place of a template (APT, Li et al., CVPR 2024, arXiv 2403.01849).

    Prompt of class k: `[start] v_1 ... v_M name_k . [end]`, with vectors `v` in the space of token embeddings, drawn
    from N(0, 0.02^2) or begun as words. Both towers stay as they are; APT starts from a TeCoA checkpoint of the same
    radius.

    Args:
        num_tokens (`int`, *optional*): M; 16, or the number of the words' tokens.
        class_specific (`bool`): Vectors of its own for each class, which then serve no other class list, instead of
            the same for all.
        class_names (`list[str]`, *optional*): That list, which training fills in.
        context_words (`str`, *optional*): Words from whose token embeddings the vectors begin, such as "a photo of a".
        context_ids (`list[int]`, *optional*): Their token ids, which training fills in.
        full_stop (`bool`): Whether a full stop follows the class name.

    Example:
        >>> tuned = TextContext(num_tokens=4).prepare(model)
        >>> [name for name, parameter in tuned.named_parameters() if parameter.requires_grad]
        ['tuning.vectors.weight']
    """

    class_specific: bool = False
    class_names: list | None = None

    DEFAULT_TOKENS = 16

    def for_classes(self, class_names: Sequence[str] | None) -> TextContext:
        if not self.class_specific:
            return self
        return replace(self, class_names=[prompt_name(name) for name in class_names])

    def prepare(self, model: nn.Module) -> nn.Module:
        return LearnedContext(self, model).attach(model)

    def describe(self) -> str:
        kind = "of each class" if self.class_specific else "of all classes"
        number = "" if self.num_tokens is None else f"{self.num_tokens} "
        return f"{number}context vectors in the prompts {kind}{self.describe_prompts()}; neither tower"


class LearnedContext(Attachment):
    """The context vectors, `[M,d]`, or `[K,M,d]` where each of K classes has its own.

    Example:
        >>> LearnedContext(TextContext(num_tokens=4), model).vectors().shape
        torch.Size([4, 16])
    """

    takes_captions = False

    def __init__(self, options: TextContext, model: nn.Module):
        super().__init__(options)
        options.check_is_ready()
        self.num_text_tokens = options.num_tokens
        self.full_stop = options.full_stop
        width = model.config.text_config.hidden_size
        if options.class_specific:
            self.vectors = TokenVectors(len(options.class_names), options.num_tokens, width)
        else:
            self.vectors = TokenVectors(options.num_tokens, width)
        if options.context_ids is not None:
            self.vectors.begin_at(embeddings_of_words(model, options))

    def check_classes(self, names: Sequence[str]) -> None:
        if self.options.class_specific and list(names) != self.options.class_names:
            raise ValueError(
                f"You passed {len(names)} classes to prompts whose context was learned for each of "
                f"{len(self.options.class_names)} others. Pass the class list of training, or train with "
                "class_specific=False."
            )

    def add_hooks(self, model: nn.Module) -> None:
        model.text_model.embeddings.token_embedding.register_forward_hook(self._insert)

    def _insert(self, module: nn.Module, args, output: torch.Tensor) -> torch.Tensor:
        return insert_text_tokens(output, self.vectors()) if has_room(self, output) else output
