"""TRADES: cross-entropy of clean images, and predictions that stay under attack."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views
from .base import Objective
from .terms import kl_divergence


@dataclass
class TRADES(Objective):
    """TRADES: a trade-off between accuracy and robustness (Zhang et al., ICML 2019, arXiv 1901.08573).

    Equation: `CE(l(x), y) + lam KL(P(x) || P(x'))`, means over the batch; gradients flow through the clean branch. The
    attack maximises `KL(P(x) || P(x'))` with `P(x)` fixed.

    Requirements: labels. Trained: vision tower (inferred: the paper trains a classifier from scratch). Authors'
    settings: lam 6; their attack starts at `0.001 N(0, 1)` around the image, where the divergence has no gradient:
    `attack_kwargs={"start_std": 0.001}`.

    Args:
        lam (`float`): Weight of the divergence.

    Example:
        >>> TRADES(lam=1.0).weights, TRADES().steers_attack
        ({'clean_ce': 1.0, 'clean_kl': 1.0}, True)
    """

    lam: float = 6.0

    @property
    def weights(self) -> dict[str, float]:
        return {"clean_ce": 1.0, "clean_kl": self.lam}

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        @functools.cache  # made in the first step, in which the attack has put the model in eval mode
        @torch.no_grad()
        def clean_logits() -> torch.Tensor:
            return student.guidance_logits(student.embed(teacher.clean))

        return lambda images: kl_divergence(clean_logits(), student.guidance_logits(student.embed(images)))

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "clean_ce": F.cross_entropy(student.clean_logits, labels),
            "clean_kl": kl_divergence(student.clean_guidance_logits, student.adversarial_guidance_logits).mean(),
        }
