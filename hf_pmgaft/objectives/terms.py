"""Terms that several objectives are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..distributed import process_share
from ..modes import at_least_float32


def kl_divergence(target_logits: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(softmax(target_logits) || softmax(logits)) per sample: `[B,K], [B,K] -> [B]`. Gradients reach both."""
    target, source = F.log_softmax(target_logits, dim=-1), F.log_softmax(logits, dim=-1)
    return F.kl_div(source, target, reduction="none", log_target=True).sum(dim=-1)


def soft_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """`-sum_k target_k log softmax(logits)_k` per sample: `[B,K], [B,K] -> [B]`."""
    return -(target * F.log_softmax(logits, dim=-1)).sum(dim=-1)


def squared_l2(embeds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance per sample, in float32 at least: `[B,D], [B,D] -> [B]`."""
    return (at_least_float32(embeds) - at_least_float32(target)).square().sum(dim=-1)


def own_ce(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row against the column that it is paired with: `[B,P*B] -> [B]`."""
    own = process_share()[0] * len(logits) + torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, own, reduction="none")


def batch_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum over the batch of all processes, whose losses Trainer averages."""
    return process_share()[1] * values.sum()
