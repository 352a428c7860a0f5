"""An ensemble of views: flips, shifted crops and other scales of an image vote on its class."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..attacks.ball import parse_factor
from ..modes import at_least_float32
from ..noise import uniform_noise
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .defence import Defence


class Ensemble(Defence):
    """Test-time transformation ensembling (Perez et al., ICCV workshop 2021, arXiv 2107.14110).

    Logits are the mean over views. These are the image and its mirror image, each as it is and as k crops of its own
    size out of it with p black pixels around. Where the crops lie is drawn once, and is the same for all images.
    Further views are at other scales, as they are and mirrored: shrunk with black around, or enlarged with the border
    cut off. The paper has none of these.

    Everything has a gradient, so that `straight_through` is `through` again.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        num_crops (`int`): k; 0 leaves image and mirror image.
        pad (`int`): p, in pixels of the images (the authors: 4 of 32).
        seed (`int`): What the places of crops are drawn from.
        scales (`float` or `str`): Further views, such as `"0.75+1.25"`: how many times as large the image is in each.

    Raises:
        ValueError: for what is no count, and for scales that are none or leave the image as it is.

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

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        *,
        num_crops: int = 4,
        pad: int = 4,
        seed: int = 0,
        scales: float | str = "",
    ):
        super().__init__(classifier)
        check_count("num_crops", num_crops, least=0)
        self.pad = check_count("pad", pad)
        numbers = uniform_noise(torch.tensor([seed]), (num_crops, 2))[0]
        self.offsets = (numbers * (2 * pad + 1)).long().tolist()
        self.scales = parse_scales(scales)

    def __call__(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        self.check_call(images, seeds, attacker)
        views = self.views(images)
        return sum(at_least_float32(self.classifier(view)) for view in views) / len(views)

    def views(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The views of images `[B,3,H,W]`, each of their shape: first they themselves, and mirrored, then crops,
        then other scales."""
        height, width = images.shape[-2:]
        mirrored = images.flip(3)

        views = [images, mirrored]
        for side in (images, mirrored):
            padded = F.pad(side, [self.pad] * 4)
            views += [padded[..., row : row + height, left : left + width] for row, left in self.offsets]
        views += [at_scale(side, scale) for scale in self.scales for side in (images, mirrored)]
        return views


def at_scale(images: torch.Tensor, scale: float) -> torch.Tensor:
    """Images `[B,C,H,W]` some times as large, in their own size: black around them, or their border cut off.

    Example:
        >>> at_scale(torch.ones(1, 1, 2, 4), 0.5)[0, 0].tolist()
        [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
        >>> at_scale(torch.ones(1, 1, 2, 4), 2.0).shape
        torch.Size([1, 1, 2, 4])
    """
    height, width = images.shape[-2:]
    size = [max(1, round(scale * side)) for side in (height, width)]
    resized = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)

    # Below 0 the border is cut off.
    down, across = height - size[0], width - size[1]
    return F.pad(resized, [across // 2, across - across // 2, down // 2, down - down // 2])


def parse_scales(text: float | str) -> list[float]:
    """Reads scales such as `"0.75+1.25"`; none of an empty text.

    Raises:
        ValueError: for what is no number above 0, and for 1.

    Example:
        >>> parse_scales("0.75+1.25"), parse_scales(0.5), parse_scales("")
        ([0.75, 1.25], [0.5], [])
    """
    scales = [parse_factor(part.strip()) for part in str(text).split("+")] if text != "" else []
    if 1 in scales:
        raise ValueError(f"You passed scales={text!r}, of which 1 leaves the image as it is. Leave it out.")
    return scales
