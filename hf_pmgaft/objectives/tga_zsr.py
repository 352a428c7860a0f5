"""TGA-ZSR: attention to the true class stays where the teacher has it on the clean image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

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

    Example:
        >>> TGAZSR().uses_patches, TGAZSR().weights
        (True, {'adversarial_ce': 1.0, 'adversarial_attention': 0.08, 'clean_attention': 0.05})
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
        adversarial = self.attention(_adversarial_tokens(student), student.classifier, labels)
        clean = self.attention(_clean_tokens(student), student.classifier, labels)
        target = self.attention(_clean_tokens(teacher), teacher.classifier, labels)
        return {
            "adversarial_ce": F.cross_entropy(student.adversarial_logits, labels),
            "adversarial_attention": (adversarial - target).norm(dim=1).mean(),
            "clean_attention": (clean - target).norm(dim=1).mean(),
        }

    def attention(self, tokens: ImageTokens, classifier: ZeroShotClassifier, labels: torch.Tensor) -> torch.Tensor:
        """The map of each image's class, of the image's size and flattened: `[B,H*W]` in [0,1]."""
        return self.attention_to(tokens, classifier.class_embeds[labels])

    def attention_to(self, tokens: ImageTokens, texts: torch.Tensor) -> torch.Tensor:
        """The map of one text per image `[B,D]`, of the image's size and flattened: `[B,H*W]` in [0,1]."""
        if self.normalised_over == "channels":
            maps = text_attention(tokens.patches, texts)
        else:
            every = torch.cat([tokens.embeds[:, None], tokens.patches.flatten(1, 2)], dim=1)
            patches = F.normalize(at_least_float32(every), dim=1)[:, 1:]
            maps = (patches * texts[:, None]).sum(dim=-1).unflatten(1, tokens.patches.shape[1:3])

        # Scaled to [0,1]; a constant map gives 0, with a finite gradient
        low = maps.amin(dim=(1, 2), keepdim=True)
        high = maps.amax(dim=(1, 2), keepdim=True)
        maps = (maps - low) / (high - low).where(high > low, 1.0)

        maps = F.interpolate(maps[:, None], size=tokens.image_size, mode="bilinear", align_corners=False)
        return maps.flatten(1)


class ImageTokens(NamedTuple):
    """The output of one pass: patch tokens `[B,h,w,D]` and embeddings `[B,D]`, and the size of the images."""

    patches: torch.Tensor
    embeds: torch.Tensor
    image_size: tuple[int, int]


# Patches are asked for before embeddings, since then one pass gives both.


def _clean_tokens(views: Views) -> ImageTokens:
    return ImageTokens(views.clean_patches, views.clean_embeds, tuple(views.clean.shape[-2:]))


def _adversarial_tokens(views: Views) -> ImageTokens:
    return ImageTokens(views.adversarial_patches, views.adversarial_embeds, tuple(views.adversarial.shape[-2:]))
