"""CAPT: predictions that stay consistent under attack, and near the frozen model as far as it is right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..zero_shot.views import Views
from .base import Objective
from .terms import kl_divergence


@dataclass
class CAPT(Objective):
    """CAPT: consistency-guided adversarial prompt tuning (Yang et al., arXiv 2405.11154). Second-hand.

    Equation: `CE(l(x), y) + lam [(1 - a) KL(P(x') || P(x)) + a KL(P(x') || P0(x))]`, means over the batch. `P0` is the
    frozen model with its own hand-written prompts, at the same scale; gradients flow through `P(x)` and `P(x')`. The
    attack maximises the cross-entropy (inferred).

    Requirements: labels, live prompts, and the teacher on clean images. Trained: deep prompts in both towers. How the
    paper adapts `a`, its `lam` and its schedule are not known to us; the rule below and `lam` are ours (inferred).

    Args:
        lam (`float`): Weight of both divergences.
        balance (`float`, *optional*): `a`. If not given, each image has its own: `P0_y(x)`, the probability that the
            frozen model gives the label of the clean image, so that it is trusted as far as it is right. Then `1 - a`
            and `a` stand inside the means, are part of the two logged terms, and the weight of both is `lam`.

    Example:
        >>> CAPT(lam=2.0, balance=0.25).weights
        {'clean_ce': 1.0, 'consistency_kl': 1.5, 'teacher_kl': 0.5}
    """

    lam: float = 1.0
    balance: float | None = None

    @property
    def weights(self) -> dict[str, float]:
        consistency, guidance = 1.0, 1.0
        if self.balance is not None:
            consistency, guidance = 1 - self.balance, self.balance
        return {"clean_ce": 1.0, "consistency_kl": self.lam * consistency, "teacher_kl": self.lam * guidance}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        consistency_kl = kl_divergence(student.adversarial_logits, student.clean_logits)
        teacher_kl = kl_divergence(student.adversarial_logits, teacher.clean_logits)
        if self.balance is None:
            balance = teacher.clean_logits.softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
            consistency_kl = (1 - balance) * consistency_kl
            teacher_kl = balance * teacher_kl
        return {
            "clean_ce": F.cross_entropy(student.clean_logits, labels),
            "consistency_kl": consistency_kl.mean(),
            "teacher_kl": teacher_kl.mean(),
        }
