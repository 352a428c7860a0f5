"""QT-AFT: embeddings at those of the teacher, and near the captions of the images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..modes import at_least_float32
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views
from .base import Objective
from .terms import paired_cross_entropy, squared_l2


@dataclass
class QTAFT(Objective):
    """QT-AFT: quality text guided adversarial fine-tuning (Waseda et al., arXiv 2507.16257).

    Equation: `|f(x') - f0(x)|^2 + 10 CE(image to caption)`, the cross-entropy over the captions of the batch,
    means over the batch; the distance as in FARE. The logit scale of the cross-entropy is learned: it starts
    at 1/0.07, its logarithm is clamped to [0, ln 100]. The attack maximises the same at the scale as it is.

    Requirements: captions; no labels are used. Trained: vision tower and the logit scale; evaluation is at CLIP's own.
    Authors' settings: ImageNet with generated captions, eps 4/255, 10 steps of 1/255, AdamW 1e-5 (0.9, 0.95), weight
    decay 1e-4, batch 128, 2 epochs.

    Args:
        weight (`float`): Weight of the cross-entropy.

    Example:
        >>> objective = QTAFT(weight=5.0)
        >>> objective.weights, sorted(objective.parameters())
        ({'squared_l2': 1.0, 'image_to_caption_ce': 5.0}, ['log_logit_scale'])
    """

    uses_captions: ClassVar[bool] = True

    weight: float = 10.0

    @property
    def weights(self) -> dict[str, float]:
        return {"squared_l2": 1.0, "image_to_caption_ce": self.weight}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"log_logit_scale": torch.tensor([math.log(1 / 0.07)])}

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        scale = _logit_scale(student).detach()

        def loss_fn(images: torch.Tensor) -> torch.Tensor:
            embeds = student.embed(images)
            cosines = student.caption_logits(embeds) / student.logit_scale
            return squared_l2(embeds, teacher.clean_embeds) + self.weight * paired_cross_entropy(scale * cosines)

        return loss_fn

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        cosines = student.adversarial_caption_logits / student.classifier.logit_scale
        return {
            "squared_l2": squared_l2(student.adversarial_embeds, teacher.clean_embeds).mean(),
            "image_to_caption_ce": paired_cross_entropy(_logit_scale(student.classifier) * cosines).mean(),
        }


def _logit_scale(classifier: ZeroShotClassifier) -> torch.Tensor:
    """The learned logit scale, held to [1, 100]."""
    log_scale = at_least_float32(classifier.learned["log_logit_scale"])
    # The gradient passes the clamp, so that a scale that has left the interval can come back.
    clamped = log_scale + (log_scale.clamp(0, math.log(100)) - log_scale).detach()
    return clamped.exp()
