"""TTC: a counterattack away from the image's own embedding, which an adversarial image resists."""

from __future__ import annotations

import torch

from ..attacks.ball import parse_radius, parse_step_size
from ..attacks.losses import gradient_of
from ..modes import at_least_float32
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .defence import PixelDefence
from .random_noise import centred_noise


class TTC(PixelDefence):
    """Test-time counterattacks (Xing et al., CVPR 2025, arXiv 2503.03613).

    From noise `d_0 ~ U(-eps, eps)`, N times `d <- clip(d + a sign grad_d |z(x+d) - z(x)|^2)`. Where noise alone moves
    the embedding little, `|z(x+d_0) - z(x)| / |z(x)| < threshold`, an adversarial image is suspected, and the mean of
    all `d_k` with weights `softmax(beta k)` is added to it; elsewhere the noise alone is. Everything stays in [0,1].

    Signs have no derivative, so that `through` differs from `straight_through` in pixels at the border of [0,1] alone.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        original (`ZeroShotClassifier`, *optional*): That of the tower before it was fine-tuned, by which the authors
            measure what noise moves; `classifier` if not given.
        eps (`float` or `str`): Largest change of a pixel, in the scale of images in [0,1].
        step_size (`float` or `str`): Length of a step, as of [`hf_pmgaft.attacks.pgd`].
        num_steps (`int`): N; 0 leaves the noise alone.
        beta (`float`): How much later steps weigh more.
        threshold (`float`): See above.

    Raises:
        ValueError: for numbers that leave nothing to do.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> defence = TTC(ZeroShotClassifier.from_model(model, processor, class_embeds), eps="8/255", num_steps=4)
        >>> moved = defence.purified(images, seeds=torch.arange(len(images)))
        >>> bool((moved - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    title = "TTC"
    is_random = True
    needs_classes = False

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        original: ZeroShotClassifier | None = None,
        *,
        eps: float | str = "4/255",
        step_size: float | str = "1/255",
        num_steps: int = 2,
        beta: float = 2.0,
        threshold: float = 0.2,
    ):
        super().__init__(classifier)
        self.original = original
        self.eps = parse_radius(eps)
        self.step_size = parse_step_size(step_size, self.eps)
        self.num_steps = check_count("num_steps", num_steps, least=0)
        self.beta = beta
        self.threshold = threshold

    def purify(self, images: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return self.counterattack(images, centred_noise(images, seeds, self.eps))

    def counterattack(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """What is classified in place of images, from given noise of their shape."""
        deltas = [into_box(noise, images)]
        if not self.num_steps:
            return images + deltas[0]

        centre = images.detach()
        clean = _embed(self.classifier, centre)
        noisy = None
        for _ in range(self.num_steps):
            embeds, gradient = self._embeds_and_gradient(centre + deltas[-1].detach(), clean)
            noisy = embeds if noisy is None else noisy
            # The direction is a constant, what the border of [0,1] cuts off is none.
            step = deltas[-1] + self.step_size * gradient.sign().to(images.dtype)
            deltas.append(into_box(step.clamp(-self.eps, self.eps), images))

        # Where the tower was fine-tuned, the original one says what noise moves.
        if self.original is not None:
            clean = _embed(self.original, centre)
            noisy = _embed(self.original, centre + deltas[0].detach())
        is_suspect = (noisy - clean).norm(dim=1) / clean.norm(dim=1) < self.threshold

        weights = torch.softmax(self.beta * torch.arange(len(deltas), dtype=torch.float64), 0).tolist()
        mean = sum(weight * delta for weight, delta in zip(weights, deltas, strict=True))
        return images + torch.where(is_suspect.view(-1, 1, 1, 1), mean, deltas[0])

    def _embeds_and_gradient(self, points: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of points, and the gradient of how far they are from the clean ones."""
        with torch.enable_grad():
            points = points.requires_grad_()
            embeds = at_least_float32(self.classifier.embed(points))
            distance = (embeds - clean).square().sum()
        return embeds.detach(), gradient_of(distance, points)


def into_box(deltas: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Changes of images, cut so that the changed images are in [0,1].

    Example:
        >>> into_box(torch.tensor([0.25, 0.25]), torch.tensor([0.5, 1.0])).tolist()
        [0.25, 0.0]
    """
    return torch.clamp(deltas, -images, 1 - images)


@torch.no_grad()
def _embed(classifier: ZeroShotClassifier, images: torch.Tensor) -> torch.Tensor:
    return at_least_float32(classifier.embed(images))
