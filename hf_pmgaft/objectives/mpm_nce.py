"""MPM-NCE: contrastive fine-tuning with several positives and a margin, the loss of R-Adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..distributed import gather_rows
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views
from .base import Objective
from .terms import soft_cross_entropy


@dataclass
class MPMNCE(Objective):
    """MPM-NCE, the loss of R-Adapter (Kim et al., ECCV 2024, arXiv 2408.05749). Second-hand: no code was read.

    Equation: the cross-entropy of `(cos + margin [negatives only]) / temperature` over the captions of the batch and
    soft targets, `(1 - e) / |P_i|` on the positives of image i and `e / (B - |P_i|)` on the others; the same from text
    to image, with each text's own positives. Summed over the batch, as written. Positives are the captions of images
    of the same label. Where all are positives they keep `(1 - e) / |P_i|` (inferred).

    Requirements: labels and captions, encoded anew where the text tower is trained. Trained: adapters in both towers.
    The paper is about natural shift: there is no attack, or one on the first direction (inferred). Authors' settings:
    ImageNet and others, AdamW 5e-4, no weight decay, cosine, 500 warm-up steps, 10 epochs, weight averaging 0.999.

    Args:
        margin (`float`): Added to the cosines of negatives.
        temperature (`float`): What cosines are divided by; the model's logit scale is not used.
        smoothing (`float`): The part `e` of the target that negatives share (inferred: the source gives no value).
        adversarial (`bool`): Whether images are attacked, and `f(x')` takes the place of `f(x)`.

    Example:
        >>> MPMNCE().uses_attack, MPMNCE(adversarial=True).uses_attack
        (False, True)
    """

    uses_captions: ClassVar[bool] = True

    margin: float = 0.05
    temperature: float = 0.01
    smoothing: float = 0.1
    adversarial: bool = False

    @property
    def uses_attack(self) -> bool:
        return self.adversarial

    @property
    def weights(self) -> dict[str, float]:
        return {"image_to_text": 1.0, "text_to_image": 1.0}

    @property
    def sums(self) -> frozenset[str]:
        return frozenset(self.weights)

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda images: self._soft_ce(student.caption_logits(student.embed(images)), labels, student.logit_scale)

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.adversarial:
            image_to_text = student.adversarial_caption_logits
            text_to_image = student.adversarial_image_logits
        else:
            image_to_text = student.clean_caption_logits
            text_to_image = student.clean_image_logits
        scale = student.classifier.logit_scale
        return {
            "image_to_text": self._soft_ce(image_to_text, labels, scale).sum(),
            "text_to_image": self._soft_ce(text_to_image, labels, scale).sum(),
        }

    def _soft_ce(self, logits: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
        """Cross-entropy per row with soft targets, whose mass lies on the row's positives: `[B]`."""
        # Captions are positives of each other's images, so a text has the positives of its own image.
        positives = (labels[:, None] == gather_rows(labels)).to(logits.dtype)
        count = positives.sum(dim=1, keepdim=True)
        negatives = (1 - positives) / (positives.shape[1] - count).clamp_min(1)
        target = (1 - self.smoothing) * positives / count + self.smoothing * negatives

        cosines = logits / scale
        return soft_cross_entropy((cosines + self.margin * (1 - positives)) / self.temperature, target)
