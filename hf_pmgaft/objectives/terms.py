"""Terms that several objectives are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..distributed import process_share
from ..modes import at_least_float32


def kl_divergence(target_logits: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(softmax(target_logits) || softmax(logits)) per sample: `[B,K], [B,K] -> [B]`. Gradients reach both.

    Example:
        >>> kl_divergence(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).item()  # the same softmax
        0.0
    """
    log_target = F.log_softmax(target_logits, dim=-1)
    log_prediction = F.log_softmax(logits, dim=-1)
    return F.kl_div(log_prediction, log_target, reduction="none", log_target=True).sum(dim=-1)


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`-sum_k target_k log softmax(logits)_k` per sample: `[B,K], [B,K] -> [B]`.

    Example:
        >>> round(soft_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.3, 0.7]])).item(), 4)  # log 2
        0.6931
    """
    return -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def squared_l2(embeds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance per sample, in float32 at least: `[B,D], [B,D] -> [B]`.

    Example:
        >>> squared_l2(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])).tolist()
        [5.0]
    """
    return (at_least_float32(embeds) - at_least_float32(target)).square().sum(dim=-1)


def paired_cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row against the column that it is paired with, as an image with its caption.

    Rows are those of this process, columns those of all P: `[B,P*B] -> [B]`.

    Example:
        >>> paired_cross_entropy(torch.tensor([[9.0, 0.0], [0.0, 9.0]])).max().item() < 0.01
        True
    """
    first = process_share()[0] * len(logits)
    columns = first + torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, columns, reduction="none")
