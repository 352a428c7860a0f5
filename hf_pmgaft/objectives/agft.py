"""AGFT: cross-entropy with the teacher's softened prediction of the clean image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views
from .base import Objective
from .terms import soft_cross_entropy


@dataclass
class AGFT(Objective):
    """AGFT: alignment-guided fine-tuning (Cui et al., CVPR 2026, arXiv 2603.29410).

    Equation: `-sum_k q_k log softmax(s cos(f(x'), t))_k` with the soft target `q = softmax(gamma s cos(f0(x), t))`,
    mean over the batch: a cross-entropy, not a divergence. The attack maximises the same with `q` fixed.

    Requirements: no labels are used; the teacher on clean images. Trained: vision tower. Authors' settings: scale 180
    in training and attack (72 for the teacher), CLIP's 100 in evaluation; ImageNet, "This is a photo of a {}.", eps
    1/255, 2 steps of 1/255, SGD 4e-4, batch 256, 10 epochs.

    Args:
        gamma (`float`): The teacher's logit scale as a part of the student's.
        scale (`float`): Logit scale in loss and attack.

    Example:
        >>> AGFT().weights, AGFT().logit_scale
        ({'soft_ce': 1.0}, 180.0)
    """

    gamma: float = 0.4
    scale: float = 180.0

    @property
    def weights(self) -> dict[str, float]:
        return {"soft_ce": 1.0}

    @property
    def logit_scale(self) -> float:
        return self.scale

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        target = self._target(teacher)
        return lambda images: soft_cross_entropy(student.guidance_logits(student.embed(images)), target)

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        soft_ce = soft_cross_entropy(student.adversarial_guidance_logits, self._target(teacher))
        return {"soft_ce": soft_ce.mean()}

    def _target(self, teacher: Views) -> torch.Tensor:
        """The teacher's prediction of the clean images, at its own temperature: `[B,K]`."""
        return (self.gamma * teacher.clean_guidance_logits).softmax(dim=-1)
