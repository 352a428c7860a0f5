"""Hedge defense: the image is attacked towards all classes at once before it is classified."""

from __future__ import annotations

import torch

from ..attacks.ball import parse_radius, parse_step_size
from ..attacks.losses import input_gradient
from ..modes import at_least_float32
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .defence import PixelDefence
from .random_noise import centred_noise


class Hedge(PixelDefence):
    """Hedge defense (Wu et al., 2021, arXiv 2106.04938).

    From `h = x + U(-eps, eps)`, which is not clipped to [0,1], K times
    `h <- clip(x + clip(h + a sign grad_h KL(uniform | P(h)) - x, eps))`; then predicts at the last h. A class that is
    left by little gives way first, which is the false one of an adversarial image.

    Croce et al. (ICML 2022, arXiv 2202.13711) take steps of 4/255. The authors' class sums logits over all points but
    the first and the last; here the last one predicts.

    Signs have no derivative, so that `through` differs from `straight_through` in pixels at the border of the ball or
    of [0,1] alone.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        eps (`float` or `str`): Largest change of a pixel, in the scale of images in [0,1].
        step_size (`float` or `str`): a, as of [`hf_pmgaft.attacks.pgd`].
        num_steps (`int`): K.

    Raises:
        ValueError: for what is no radius or length, or no number of steps.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> defence = Hedge(ZeroShotClassifier.from_model(model, processor, class_embeds), eps="8/255", num_steps=5)
        >>> moved = defence.purified(images, seeds=torch.arange(len(images)))
        >>> bool((moved - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    title = "hedge defense"
    is_random = True

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        *,
        eps: float | str = 0.031,
        step_size: float | str = 0.007,
        num_steps: int = 20,
    ):
        super().__init__(classifier)
        self.eps = parse_radius(eps)
        self.step_size = parse_step_size(step_size, self.eps)
        self.num_steps = check_count("num_steps", num_steps)

    def purify(self, images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return self.hedge(images, centred_noise(images, seeds, self.eps))

    def hedge(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """What is classified in place of images, from given noise of their shape."""
        points = images + noise
        for _ in range(self.num_steps):
            # The direction is a constant, what ball and box cut off is none.
            direction = input_gradient(self._distance_to_uniform, points).sign().to(images.dtype)
            delta = (points + self.step_size * direction - images).clamp(-self.eps, self.eps)
            points = (images + delta).clamp(0, 1)
        return points

    def _distance_to_uniform(self, points: torch.Tensor) -> torch.Tensor:
        """The KL divergence of the uniform distribution from the predicted one, but for a constant, `[B]`."""
        logits = at_least_float32(self.classifier(points))
        return logits.logsumexp(1) - logits.mean(1)
