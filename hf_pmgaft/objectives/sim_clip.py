"""Sim-CLIP: clean and adversarial embeddings as a siamese pair; no text, no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..zero_shot.views import Views
from .fare import FARE


@dataclass
class SimCLIP(FARE):
    """Sim-CLIP: unsupervised siamese adversarial fine-tuning (Hossain and Imteaj, arXiv 2407.14971).

    Equation: `-1/2 [cos(f(x'), sg f(x)) + cos(sg f(x'), f(x))]`, mean over the batch, `sg` without gradient. The
    attack maximises `|f(x') - f0(x)|^2` on un-normalised embeddings, as in FARE.

    Requirements: no labels are used. Trained: vision tower. Authors' settings: ImageNet, eps 4/255, 10 steps of 1/255,
    AdamW 1e-3, weight decay 1e-5, batch 64, 10k steps.

    Args:
        version (`"paper"` or `"released_code"`): The released code minimises `-1/2 cos(f(x'), f0(x))`, against the
            frozen teacher (and prints it without the half).

    Example:
        >>> SimCLIP().weights
        {'adversarial_to_clean': 0.5, 'clean_to_adversarial': 0.5}
        >>> SimCLIP(version="released_code").weights
        {'negative_cosine': 0.5}
    """

    version: Literal["paper", "released_code"] = "paper"

    @property
    def weights(self) -> dict[str, float]:
        if self.version == "released_code":
            return {"negative_cosine": 0.5}
        return {"adversarial_to_clean": 0.5, "clean_to_adversarial": 0.5}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        adversarial = student.adversarial_embeds
        if self.version == "released_code":
            return {"negative_cosine": _negative_cosine(adversarial, teacher.clean_embeds)}
        return {
            "adversarial_to_clean": _negative_cosine(adversarial, student.clean_embeds.detach()),
            "clean_to_adversarial": _negative_cosine(adversarial.detach(), student.clean_embeds),
        }


def _negative_cosine(embeds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Minus the cosine of embeddings `[B,D]` and their targets, mean over the batch."""
    return -F.cosine_similarity(at_least_float32(embeds), at_least_float32(target)).mean()
