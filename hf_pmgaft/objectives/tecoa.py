"""TeCoA: cross-entropy of adversarial images over the class texts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..zero_shot.views import Views
from .base import Objective


@dataclass
class TeCoA(Objective):
    """TeCoA: text-guided contrastive adversarial training (Mao et al., ICLR 2023, arXiv 2212.07016, equation 3).

    Equation: `CE(l(x'), y)`, mean over the batch; the attack maximises the same cross-entropy.

    Requirements: labels. Trained: vision tower. Authors' settings: TinyImageNet or ImageNet, eps 1/255, 2 steps of
    1/255, SGD 1e-5, batch 256, 10 epochs.

    Example:
        >>> from hf_pmgaft.zero_shot import Views, ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> student = Views(classifier, clean=images, adversarial=images)
        >>> terms = TeCoA().loss(student, teacher=student, labels=labels)
        >>> list(terms), TeCoA().weights
        (['adversarial_ce'], {'adversarial_ce': 1.0})
    """

    @property
    def weights(self) -> dict[str, float]:
        return {"adversarial_ce": 1.0}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"adversarial_ce": F.cross_entropy(student.adversarial_logits, labels)}
