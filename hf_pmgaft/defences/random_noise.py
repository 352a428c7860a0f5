"""Uniform noise before the encoder: what counterattacks are compared with."""

from __future__ import annotations

import torch

from ..attacks.ball import parse_radius
from ..noise import uniform_noise
from ..zero_shot.classifier import ZeroShotClassifier
from .defence import PixelDefence


class RandomNoise(PixelDefence):
    """Predicts at `clip(x + U(-eps, eps))` into [0,1], as TTC does without its counterattack (arXiv 2503.03613).

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        eps (`float` or `str`): Largest change of a pixel, in the scale of images in [0,1].

    Raises:
        ValueError: for what is no radius.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> defence = RandomNoise(ZeroShotClassifier.from_model(model, processor, class_embeds), eps="8/255")
        >>> logits = defence(images, seeds=torch.arange(len(images)))
        >>> torch.equal(logits, defence(images, seeds=torch.arange(len(images))))
        True
    """

    title = "random noise"
    is_random = True
    needs_classes = False

    def __init__(self, classifier: ZeroShotClassifier, *, eps: float | str = "4/255"):
        super().__init__(classifier)
        self.eps = parse_radius(eps)

    def purify(self, images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return self.add(images, centred_noise(images, seeds, self.eps))

    def add(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Images with noise of their shape, clipped to [0,1]."""
        return (images + noise).clamp(0, 1)


def centred_noise(images: torch.Tensor, seeds: torch.Tensor, eps: float) -> torch.Tensor:
    """Draws uniformly from -eps to eps for each pixel, from each image's seed alone.

    Example:
        >>> noise = centred_noise(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), eps=0.5)
        >>> noise.shape, bool(noise.abs().max() <= 0.5)
        (torch.Size([2, 3, 8, 8]), True)
    """
    return ((2 * uniform_noise(seeds, images.shape[1:]) - 1) * eps).to(images.dtype)
