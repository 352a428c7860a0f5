"""PMG-AFT: adversarial fine-tuning guided by the frozen model and by the model's own clean prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from ..zero_shot.views import Views
from .base import Objective
from .terms import kl_divergence


@dataclass
class PMGAFT(Objective):
    """PMG-AFT: pre-trained model guided adversarial fine-tuning (Wang et al., CVPR 2024, arXiv 2401.04350, eq. 5-8).

    Equation: `CE(l(x'), y) + alpha KL(P0(x') || P(x')) + beta KL(P(x) || P(x'))`, means over the batch. `P0` is the
    frozen teacher's prediction, without gradient; the clean branch `P(x)` has one. The attack maximises the
    cross-entropy.

    Requirements: labels, and the teacher on adversarial images. Trained: vision tower. Relation to others: alpha =
    beta = 0 is TeCoA. Authors' settings: TinyImageNet, eps 1/255, 2 steps of 1/255, SGD 5e-5, batch 256, 10 epochs.
    Their released code differs from the equation (scale 1, KL summed over the batch): see
    `hf_pmgaft/recipes/pmg_aft_released_code.yaml`.

    Args:
        alpha (`float`): Weight of the teacher's guidance on adversarial images.
        beta (`float`): Weight of the tuned model's own clean prediction.
        clean_gradient (`bool`): Whether gradients flow through `P(x)`.
        kl_reduction (`"mean"` or `"sum"`): Over the batch, for both KL terms. Released code: `"sum"`, which makes
            alpha and beta heavier by the batch size.
        kl_direction (`"forward"` or `"reverse"`): Forward as in the equation; reverse exchanges the arguments of both
            KL terms, as the first public version of the released code did.
        scale (`float`, *optional*): Logit scale in loss and attack; the model's own if not given. Released code: 1.

    Example:
        >>> PMGAFT(alpha=2.0).weights
        {'adversarial_ce': 1.0, 'teacher_kl': 2.0, 'clean_kl': 1.0}
    """

    alpha: float = 1.0
    beta: float = 1.0
    clean_gradient: bool = True
    kl_reduction: Literal["mean", "sum"] = "mean"
    kl_direction: Literal["forward", "reverse"] = "forward"
    scale: float | None = None

    @property
    def weights(self) -> dict[str, float]:
        return {"adversarial_ce": 1.0, "teacher_kl": self.alpha, "clean_kl": self.beta}

    @property
    def sums(self) -> frozenset[str]:
        return frozenset({"teacher_kl", "clean_kl"}) if self.kl_reduction == "sum" else frozenset()

    @property
    def logit_scale(self) -> float | None:
        return self.scale

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        terms = {"adversarial_ce": F.cross_entropy(student.adversarial_logits, labels)}
        if self.alpha:
            terms["teacher_kl"] = self._kl(
                teacher.adversarial_guidance_logits.detach(), student.adversarial_guidance_logits
            )
        if self.beta:
            clean = student.clean_guidance_logits
            if not self.clean_gradient:
                clean = clean.detach()
            terms["clean_kl"] = self._kl(clean, student.adversarial_guidance_logits)
        return terms

    def _kl(self, target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The divergence of a prediction from its target, over the batch, in the direction and reduction chosen."""
        if self.kl_direction == "reverse":
            target, logits = logits, target
        kl = kl_divergence(target, logits)
        return kl.sum() if self.kl_reduction == "sum" else kl.mean()
