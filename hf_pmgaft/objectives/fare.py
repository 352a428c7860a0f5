"""FARE: adversarial embeddings stay at the teacher's clean ones; no text, no labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views
from .base import Objective
from .terms import squared_l2


@dataclass
class FARE(Objective):
    """FARE: unsupervised adversarial fine-tuning (Schlarmann et al., ICML 2024, arXiv 2402.12336, equation 3).

    Equation: `|f(x') - f0(x)|^2` on un-normalised embeddings, summed over dimensions, mean over the batch; the attack
    maximises the same distance. `f0` is the frozen teacher.

    Requirements: no labels are used. Trained: vision tower. Authors' settings: ImageNet, eps 2 or 4/255, 10 steps of
    1/255, AdamW 1e-5, weight decay 1e-4, batch 128, 20k steps.

    Example:
        >>> FARE().uses_text, FARE().steers_attack, FARE().weights
        (False, True, {'squared_l2': 1.0})
    """

    uses_text: ClassVar[bool] = False

    @property
    def weights(self) -> dict[str, float]:
        return {"squared_l2": 1.0}

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda images: squared_l2(student.embed(images), teacher.clean_embeds)

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"squared_l2": squared_l2(student.adversarial_embeds, teacher.clean_embeds).mean()}
