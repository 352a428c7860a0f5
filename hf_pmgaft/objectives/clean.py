"""Fine-tuning on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..zero_shot.views import Views
from .base import Objective


@dataclass
class Clean(Objective):
    """Clean fine-tuning, the baseline without an attack (zero-shot head of CLIP, arXiv 2103.00020).

    Equation: `CE(l(x), y)`, mean over the batch.

    Requirements: labels. Trained: vision tower.

    Example:
        >>> Clean().uses_attack, Clean().weights
        (False, {'clean_ce': 1.0})
    """

    uses_attack: ClassVar[bool] = False

    @property
    def weights(self) -> dict[str, float]:
        return {"clean_ce": 1.0}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"clean_ce": F.cross_entropy(student.clean_logits, labels)}
