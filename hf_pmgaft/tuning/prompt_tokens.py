"""Learned tokens among those of a text, which prompt tunings of either kind are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..models.backbones import unwrap
from .base import Attachment


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

    def forward(self) -> torch.Tensor:
        # The view keeps DDP's and FSDP's hooks on the module's output off the parameter itself.
        return self.weight.view_as(self.weight)


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
