"""AdvFLYP: contrastive fine-tuning on adversarial images and their captions, near the teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views
from .base import Objective
from .terms import kl_divergence, paired_cross_entropy


@dataclass
class AdvFLYP(Objective):
    """AdvFLYP: finetune like you pretrain, on adversarial images and captions (Xing et al., arXiv 2604.11576).

    Equation: `InfoNCE(x', captions) + lam_f (|u f(x') - u f0(x')| + |u f(x') - u f(x)|) + lam_l (KL(P(x') || P0(x')) +
    KL(P(x') || P(x)))`, means over the batch. InfoNCE is the mean of its two directions, `P` the prediction over the
    captions of the batch, `u` normalises; gradients flow through the clean branch. The attack
    maximises InfoNCE: per image half of its two cross-entropies, of which caption to image depends on the whole batch.
    InfoNCE and its attack see the images and captions of all processes, the predictions `P` too, so that the processes
    of a batch do what one does. Accumulation does not: it averages the losses of smaller batches with fewer negatives.

    Requirements: captions, and the teacher on adversarial images; no labels are used. Trained: vision tower. Authors'
    settings: 1 M web pairs, eps 1/255, 2 steps of 1/255, SGD 1e-4, batch 256, up to 100 epochs with patience 10,
    CLIP's logit scale frozen.

    Args:
        lam_f (`float`): Weight of the distances of the features.
        lam_l (`float`): Weight of the divergences of the predictions.

    Example:
        >>> AdvFLYP(lam_f=0.5).uses_captions, AdvFLYP(lam_f=0.5).weights["clean_feature_l2"]
        (True, 0.5)
    """

    uses_captions: ClassVar[bool] = True

    lam_f: float = 1.0
    lam_l: float = 1.0

    @property
    def weights(self) -> dict[str, float]:
        return {
            "infonce": 1.0,
            "teacher_feature_l2": self.lam_f,
            "clean_feature_l2": self.lam_f,
            "teacher_kl": self.lam_l,
            "clean_kl": self.lam_l,
        }

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        def loss_fn(images: torch.Tensor) -> torch.Tensor:
            embeds = student.embed(images)
            return _infonce(student.caption_logits(embeds), student.image_logits(embeds))

        return loss_fn

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = student.adversarial_caption_logits
        embeds = student.adversarial_embeds
        return {
            "infonce": _infonce(logits, student.adversarial_image_logits).mean(),
            "teacher_feature_l2": _unit_l2(embeds, teacher.adversarial_embeds).mean(),
            "clean_feature_l2": _unit_l2(embeds, student.clean_embeds).mean(),
            "teacher_kl": kl_divergence(logits, teacher.adversarial_caption_logits).mean(),
            "clean_kl": kl_divergence(logits, student.clean_caption_logits).mean(),
        }


def _infonce(caption_logits: torch.Tensor, image_logits: torch.Tensor) -> torch.Tensor:
    """InfoNCE per pair of an image and its caption: the mean of both directions, `[B]`."""
    return (paired_cross_entropy(caption_logits) + paired_cross_entropy(image_logits)) / 2


def _unit_l2(embeds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Distance of the directions of embeddings per sample: `[B,D], [B,D] -> [B]`."""
    direction = F.normalize(at_least_float32(embeds), dim=-1)
    target_direction = F.normalize(at_least_float32(target), dim=-1)
    return (direction - target_direction).norm(dim=-1)
