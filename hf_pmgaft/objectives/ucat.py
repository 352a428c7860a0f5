"""UCAT: guidance by the teacher's evidence for each class, not by its prediction alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.distributions import Dirichlet, kl_divergence

from ..zero_shot.views import Views
from .base import Objective


@dataclass
class UCAT(Objective):
    """UCAT: uncertainty-calibrated adversarial fine-tuning (Lu et al., ICML 2026, arXiv 2512.12997).

    Equation: `CE(l(x'), y) + lam KL(Dir(a(x')) || Dir(a0(x)))` with the concentrations `a = 1e-6 + exp((cos + 1) /
    tau)`, teacher on the clean image, means over the batch. The attack maximises the cross-entropy.

    Requirements: labels, and the teacher on clean images. Trained: vision tower. The divergence is nearly that of the
    softmax predictions at temperature tau times the sum of the teacher's concentrations, so it weighs more with more
    classes (about 12, 240 and 1200 for 10, 200 and 1000). Authors' settings: TinyImageNet, eps 1/255, 2 steps of
    1/255, SGD 1e-4, batch 256, 10 epochs.

    Args:
        lam (`float`, *optional*): Weight of the divergence; `1e5 / exp(softplus(2 / tau))` if not given, 3.9e-8.
        tau (`float`): Temperature of the concentrations.

    Example:
        >>> UCAT(lam=1e-3).weights
        {'adversarial_ce': 1.0, 'dirichlet_kl': 0.001}
    """

    lam: float | None = None
    tau: float = 0.07

    @property
    def weights(self) -> dict[str, float]:
        # exp(softplus(z)) = 1 + exp(z)
        lam = 1e5 / (1 + math.exp(2 / self.tau)) if self.lam is None else self.lam
        return {"adversarial_ce": 1.0, "dirichlet_kl": lam}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = student.adversarial_guidance_logits
        student_dirichlet = self._dirichlet(student.classifier.cosines(logits))
        teacher_dirichlet = self._dirichlet(teacher.classifier.cosines(teacher.clean_guidance_logits))
        return {
            "adversarial_ce": F.cross_entropy(student.adversarial_logits, labels),
            "dirichlet_kl": kl_divergence(student_dirichlet, teacher_dirichlet).mean().to(logits.dtype),
        }

    def _dirichlet(self, cosines: torch.Tensor) -> Dirichlet:
        """The distribution over predictions that cosines `[B,K]` stand for."""
        # In float64: the divergence is a difference of log-gammas near 1e10, whose round-off in float32 is larger than
        # itself where student and teacher are close (negative values, gradients 1 % off). A NaN goes on to the loss.
        return Dirichlet(1e-6 + ((cosines.double() + 1) / self.tau).exp(), validate_args=False)
