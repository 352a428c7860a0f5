"""Randomised smoothing: normal noise before the encoder, under which the most frequent class can be certified."""

from __future__ import annotations

import torch

from ..attacks.ball import parse_factor
from ..noise import normal_noise
from ..zero_shot.classifier import ZeroShotClassifier
from .certificate import check_alpha
from .defence import PixelDefence

LARGEST_SIGMA = 4.0  # of pixels from 0 to 1: what is above was meant in grey levels


class Smoothing(PixelDefence):
    """Predicts at `x + N(0, sigma^2 I)` (Cohen et al., ICML 2019, arXiv 1902.02918).

    In an evaluation it predicts the most frequent class of `draws`, and abstains where a two-sided binomial test at
    alpha does not tell that from the next one.

    Noise is added at the images' own size, before any resize, so that radii are those of the images. It is not clipped
    to [0,1], as in the authors' code: a certificate would hold for clipped images too, but black and white pixels
    would lose half of their noise and of their gradient. With no clip, `straight_through` is `through` again. What is
    certified says `hf_pmgaft.evaluation.certify`.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        sigma (`float` or `str`): Standard deviation of a pixel's noise, in the scale of images in [0,1] (the authors:
            0.12, 0.25, 0.5 and 1). More of it reaches larger radii, and costs accuracy.
        alpha (`float`): How probable it may be that a prediction is not the most probable class, in (0,1).

    Raises:
        ValueError: for what is no standard deviation, 0, and more than 4; for what is no probability.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> defence = Smoothing(ZeroShotClassifier.from_model(model, processor, class_embeds), sigma=0.12)
        >>> defence(images, seeds=torch.arange(len(images))).shape
        torch.Size([16, 4])
    """

    title = "smoothing"
    is_random = True
    attackers = ("unaware", "through")

    def __init__(self, classifier: ZeroShotClassifier, *, sigma: float | str = 0.25, alpha: float = 0.001):
        super().__init__(classifier)
        check_alpha(alpha)
        self.alpha = alpha
        self.sigma = parse_factor(sigma)
        if self.sigma > LARGEST_SIGMA:
            raise ValueError(
                f"You passed sigma={sigma}, but pixels go from 0 to 1, so nothing of an image would be left. If you "
                f"meant {sigma} of 255 grey levels, write {sigma}/255."
            )

    def purify(self, images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return self.add(images, normal_noise(seeds, images.shape[1:]).to(images.dtype))

    def add(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Images with standard normal noise of their shape, sigma of it."""
        return images + self.sigma * noise
