from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..prompts import prompt_name
from .base import Attachment, Tuning


@dataclass
class TextContext(Tuning):
    """Learned context before the class name, in place of a template (APT, Li et al., CVPR 2024, arXiv 2403.01849).

    Prompt of class k: `[start] v_1 ... v_M name_k . [end]`, with vectors `v` in the space of token embeddings, drawn
    from N(0, 0.02^2). Both towers stay as they are; APT starts from a TeCoA checkpoint of the same radius.

    Args:
        num_tokens (`int`): M.
        class_specific (`bool`): Vectors of its own for each class, which then serve no other class list, instead of
            the same for all.
        class_names (`list[str]`, *optional*): That list, which training fills in.
    """

    num_tokens: int = 16
    class_specific: bool = False
    class_names: list | None = None

    def __post_init__(self):
        if self.num_tokens < 1:
            raise ValueError(f"You passed num_tokens={self.num_tokens}, which learns nothing. Pass 1 or more.")

    def for_classes(self, class_names: Sequence[str] | None) -> TextContext:
        return replace(self, class_names=[*map(prompt_name, class_names)]) if self.class_specific else self

    def prepare(self, model: nn.Module) -> nn.Module:
        return Context(self, model).attach(model)

    def describe(self) -> str:
        kind = "of each class" if self.class_specific else "of all classes"
        return f"{self.num_tokens} context vectors in the prompts {kind}; neither tower"


class Context(Attachment):
    """The context vectors, `[M,d]` or `[K,M,d]`."""

    takes_captions = False

    def __init__(self, options: TextContext, model: nn.Module):
        super().__init__(options)
        self.num_text_tokens = options.num_tokens
        classes = [len(options.class_names)] if options.class_specific else []
        self.vectors = Vectors(*classes, options.num_tokens, model.config.text_config.hidden_size)

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
        return insert_text_tokens(output, self.vectors()) if is_prompt(self, output) else output


class Vectors(nn.Module):
    """A parameter that engines may gather, since it comes out of a module's own pass."""

    def __init__(self, *shape: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(shape))

    def forward(self) -> torch.Tensor:
        # The view keeps DDP's and FSDP's hooks on the module's output off the parameter itself.
        return self.weight.view_as(self.weight)


def is_prompt(tuning: Attachment, hidden: torch.Tensor) -> bool:
    """Whether text `[N,L,d]` has room for the learned tokens: the two-token text of image passes has not."""
    return tuning.enabled and hidden.shape[1] > 1 + tuning.num_text_tokens


def insert_text_tokens(hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Text `[N,L,d]` with learned tokens, `[M,d]` or `[N,M,d]`, in the M places after the start token."""
    tokens = tokens.to(hidden.dtype).expand(len(hidden), *tokens.shape[-2:])
    return torch.cat([hidden[:, :1], tokens, hidden[:, 1 + tokens.shape[1] :]], dim=1)
