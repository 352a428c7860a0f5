"""CAW: guidance by the teacher that weighs more where the student is unsure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..zero_shot.views import Views
from .base import Objective
from .terms import kl_divergence


@dataclass
class CAW(Objective):
    """CAW: confidence-aware weighting (Naghavian and Tavassolipour, arXiv 2510.02913). Second-hand: no code was read.

    Equation: `CE(l(x'), y) + alpha mean[KL(P(x') || P0(x)) (1 - P_y(x'))] + beta |f(x') - f0(x')|`, means over the
    batch, features un-normalised; nothing is detached (inferred). The attack maximises the cross-entropy.

    Requirements: labels, and the teacher on clean and adversarial images. Trained: vision tower. Authors' settings:
    alpha = beta = 1 (inferred); the others are not known to us.

    Args:
        alpha (`float`): Weight of the divergence from the teacher's clean prediction.
        beta (`float`): Weight of the distance of the features.
        detach_weight (`bool`): Whether `1 - P_y(x')` is a mere weight, without gradient.

    Example:
        >>> CAW(alpha=2.0).weights
        {'adversarial_ce': 1.0, 'confidence_weighted_kl': 2.0, 'feature_l2': 1.0}
    """

    alpha: float = 1.0
    beta: float = 1.0
    detach_weight: bool = False

    @property
    def weights(self) -> dict[str, float]:
        return {"adversarial_ce": 1.0, "confidence_weighted_kl": self.alpha, "feature_l2": self.beta}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        ce = F.cross_entropy(student.adversarial_logits, labels, reduction="none")
        doubt = 1 - torch.exp(-(ce.detach() if self.detach_weight else ce))

        kl = kl_divergence(student.adversarial_guidance_logits, teacher.clean_guidance_logits)
        difference = at_least_float32(student.adversarial_embeds) - at_least_float32(teacher.adversarial_embeds)
        return {
            "adversarial_ce": ce.mean(),
            "confidence_weighted_kl": (kl * doubt).mean(),
            "feature_l2": difference.norm(dim=1).mean(),
        }
