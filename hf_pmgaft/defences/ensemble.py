"""An ensemble of views: flips and shifted crops of an image vote on its class."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..noise import uniform_noise
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .defence import Defence


class Ensemble(Defence):
    """Test-time transformation ensembling (Perez et al., ICCV workshop 2021, arXiv 2107.14110).

    Logits are the mean over views. These are the image and its mirror image, each as it is and as k crops of its own
    size out of it with p black pixels around. Where the crops lie is drawn once, and is the same for all images.

    Everything has a gradient, so that `straight_through` is `through` again.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        num_crops (`int`): k; 0 leaves image and mirror image.
        pad (`int`): p, in pixels of the images (the authors: 4 of 32).
        seed (`int`): What the places of crops are drawn from.

    Raises:
        ValueError: for what is no count.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> logits = Ensemble(classifier, num_crops=0)(images)
        >>> torch.allclose(logits, (classifier(images) + classifier(images.flip(3))) / 2)
        True
    """

    title = "views"
    has_embeds = False
    attackers = ("unaware", "through")

    def __init__(self, classifier: ZeroShotClassifier, *, num_crops: int = 4, pad: int = 4, seed: int = 0):
        super().__init__(classifier)
        check_count("num_crops", num_crops, least=0)
        self.pad = check_count("pad", pad)
        numbers = uniform_noise(torch.tensor([seed]), (num_crops, 2))[0]
        self.offsets = (numbers * (2 * pad + 1)).long().tolist()

    def __call__(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        self.check_call(images, seeds, attacker)
        total = sum(at_least_float32(self.classifier(view)) for view in self.views(images))
        return total / (2 * len(self.offsets) + 2)

    def views(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The views of images `[B,3,H,W]`, each of their shape: first they themselves, and mirrored, then crops."""
        height, width = images.shape[-2:]
        mirrored = images.flip(3)

        views = [images, mirrored]
        for side in (images, mirrored):
            padded = F.pad(side, [self.pad] * 4)
            views += [padded[..., row : row + height, left : left + width] for row, left in self.offsets]
        return views
