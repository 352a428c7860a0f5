"""FAP: TRADES weighted by how alike clean and adversarial embeddings are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..zero_shot.views import Views
from .terms import kl_divergence
from .trades import TRADES


@dataclass
class FAP(TRADES):
    """FAP: few-shot adversarial prompt learning (Zhou et al., NeurIPS 2024, arXiv 2403.14774).

    Equation: `CE(l(x), y) + lam mean[KL(P(x) || P(x')) (cos(f(x), f(x')) + 1)]`, means over the batch; gradients flow
    through everything. The attack maximises `KL(P(x) || P(x'))` with `P(x)` fixed, as in TRADES.

    Requirements: labels, live prompts. Trained: deep prompts, 2 tokens in each of 9 layers, learned on the vision side
    and projected to the text side (only in the first layer the other way). Authors' settings: few-shot, plain CLIP,
    eps 1/255, 2 steps of 1/255, SGD 3.5e-3 after one epoch at 1e-5, batch 4, 10 epochs; tested with cross-entropy.

    Args:
        lam (`float`): Weight of the divergence.

    Example:
        >>> FAP().weights
        {'clean_ce': 1.0, 'weighted_kl': 1.5}
    """

    lam: float = 1.5

    @property
    def weights(self) -> dict[str, float]:
        return {"clean_ce": 1.0, "weighted_kl": self.lam}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        kl = kl_divergence(student.clean_guidance_logits, student.adversarial_guidance_logits)
        clean = at_least_float32(student.clean_embeds)
        adversarial = at_least_float32(student.adversarial_embeds)
        similarity = F.cosine_similarity(clean, adversarial)
        return {
            "clean_ce": F.cross_entropy(student.clean_logits, labels),
            "weighted_kl": (kl * (similarity + 1)).mean(),
        }
