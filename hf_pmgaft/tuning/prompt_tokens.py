"""Learned tokens among those of a text, which prompt tunings of either kind are made of."""

from __future__ import annotations

import torch
from torch import nn

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
