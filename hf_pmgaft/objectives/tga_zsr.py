from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views, text_attention
from .base import Objective


@dataclass
class TGAZSR(Objective):
    """TGA-ZSR: text-guided attention (Yu et al., NeurIPS 2024, arXiv 2410.21802).

    Equation: `CE(l(x'), y) + 0.08 |A_f(x') - A_f0(x)| + 0.05 |A_f(x) - A_f0(x)|`, means over the batch; gradients flow
    through the clean branch. `A` is the map of the patch tokens' cosines with the text of the true class, scaled to
    [0,1] over the patches of each image, resized to the image (bilinear) and flattened; the norm is Euclidean and not
    divided by the size. The attack maximises the cross-entropy.

    Requirements: labels, patch tokens, and the teacher's on clean images. Trained: vision tower. Authors' settings:
    TinyImageNet, eps 1/255, 2 steps of 1/255, SGD 1e-4, batch 128, 10 epochs.

    Args:
        adversarial_weight (`float`): Weight of the distance of the adversarial map.
        clean_weight (`float`): Weight of the distance of the clean map.
        normalised_over (`"channels"` or `"tokens"`): What patch tokens are normalised over before the dot product: the
            channels of each token as in the paper, or, as in the released code, each channel over all tokens, of which
            the class token is dropped afterwards.
    """

    uses_patches: ClassVar[bool] = True

    adversarial_weight: float = 0.08
    clean_weight: float = 0.05
    normalised_over: Literal["channels", "tokens"] = "channels"

    @property
    def weights(self) -> dict[str, float]:
        return {
            "adversarial_ce": 1.0,
            "adversarial_attention": self.adversarial_weight,
            "clean_attention": self.clean_weight,
        }

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        size = tuple(student.clean.shape[-2:])
        # Patches are asked for before embeddings, since then one pass gives both.
        adversarial = self.attention(
            student.classifier, student.adversarial_patches, student.adversarial_embeds, labels, size
        )
        clean = self.attention(student.classifier, student.clean_patches, student.clean_embeds, labels, size)
        target = self.attention(teacher.classifier, teacher.clean_patches, teacher.clean_embeds, labels, size)
        return {
            "adversarial_ce": F.cross_entropy(student.adversarial_logits, labels),
            "adversarial_attention": (adversarial - target).norm(dim=1).mean(),
            "clean_attention": (clean - target).norm(dim=1).mean(),
        }

    def attention(
        self,
        classifier: ZeroShotClassifier,
        patches: torch.Tensor,
        embeds: torch.Tensor,
        labels: torch.Tensor,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """The map of each image's class, of the image's size and flattened: `[B,H*W]` in [0,1]."""
        return self.attention_to(classifier.class_embeds[labels], patches, embeds, size)

    def attention_to(
        self, texts: torch.Tensor, patches: torch.Tensor, embeds: torch.Tensor, size: tuple[int, int]
    ) -> torch.Tensor:
        """Likewise of each image's text: `[B,D], [B,h,w,D], [B,D] -> [B,H*W]`."""
        if self.normalised_over == "channels":
            maps = text_attention(patches, texts)
        else:
            tokens = torch.cat([embeds[:, None], patches.flatten(1, 2)], dim=1)
            tokens = F.normalize(at_least_float32(tokens), dim=1)[:, 1:]
            maps = (tokens * texts[:, None]).sum(dim=-1).unflatten(1, patches.shape[1:3])
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        maps = (maps - low) / (high - low).where(high > low, 1.0)  # a constant map gives 0, with a finite gradient
        return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False).flatten(1)
