from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..zero_shot import Views
from .agft import soft_cross_entropy
from .base import Objective


@dataclass
class MPMNCE(Objective):
    """MPM-NCE, the loss of R-Adapter (Kim et al., ECCV 2024, arXiv 2408.05749). Second-hand: no code was read.

    Equation: the cross-entropy of `(cos + margin [negatives only]) / temperature` over the captions of the batch (of
    one process) against soft targets, `(1 - e) / |P_i|` on the positives of image i and `e / (B - |P_i|)` on the
    others; the same from text to image, with each text's own positives. Summed over the batch, as written. Positives
    are the captions of images of the same label. Where all are positives they keep `(1 - e) / |P_i|` (inferred).

    Requirements: labels and captions, encoded anew where the text tower is trained. Trained: adapters in both towers.
    The paper is about natural shift: there is no attack, or any that the trainer has (inferred). Authors' settings:
    ImageNet and others, AdamW 5e-4, no weight decay, cosine, 500 warm-up steps, 10 epochs, weight averaging 0.999.

    Args:
        margin (`float`): Added to the cosines of negatives.
        temperature (`float`): What cosines are divided by; the model's logit scale is not used.
        smoothing (`float`): The part `e` of the target that negatives share (inferred: the source gives no value).
        adversarial (`bool`): Whether images are attacked, by cross-entropy, and `f(x')` takes the place of `f(x)`.
    """

    uses_captions: ClassVar[bool] = True

    margin: float = 0.05
    temperature: float = 0.01
    smoothing: float = 0.1
    adversarial: bool = False

    @property
    def attacks(self) -> bool:
        return self.adversarial

    @property
    def weights(self) -> dict[str, float]:
        return {"image_to_text": 1.0, "text_to_image": 1.0}

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = student.adversarial_caption_logits if self.adversarial else student.clean_caption_logits
        positives = (labels[:, None] == labels).to(logits.dtype)
        logits = (logits / student.classifier.logit_scale + self.margin * (1 - positives)) / self.temperature
        count = positives.sum(dim=1, keepdim=True)
        negatives = (1 - positives) / (len(labels) - count).clamp_min(1)
        target = (1 - self.smoothing) * positives / count + self.smoothing * negatives
        # Two captions are positives of each other's images, so the targets of a text are those of its image.
        return {
            "image_to_text": soft_cross_entropy(logits, target).sum(),
            "text_to_image": soft_cross_entropy(logits.T, target).sum(),
        }
