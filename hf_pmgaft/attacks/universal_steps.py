"""Steps by which one perturbation for all images comes about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..registry import check_choice
from .losses import Loss, cross_entropy, gradient_of

UNIVERSAL_LOSSES = ("ce", "cosine")


class UniversalSteps:
    """Walks with one perturbation through minibatches, up the mean loss of one model or several.

    Equation: `m_k <- momentum * m_k + g_k / mean |g_k|` for the gradient `g_k` of the mean loss of model k, and
    `d <- clip(d + step_size * mean over k of sign(m_k), -eps, eps)`. Without momentum these are the steps of
    X-Transfer (Huang et al., ICML 2025, arXiv 2505.05528), which averages signs and not gradients.

    Args:
        delta (`torch.Tensor`): `[C,H,W]`: where it begins.
        eps (`float`): Radius in L-inf.
        step_size (`float`): Length of a step.
        momentum (`float`): What is kept of the direction, from 0 to below 1.

    Attributes:
        delta (`torch.Tensor`): `[C,H,W]`: where it is.

    Example:
        >>> steps = UniversalSteps(torch.zeros(3, 2, 2), eps=0.1, step_size=0.04)
        >>> images = torch.full((2, 3, 2, 2), 0.5)
        >>> for _ in range(4):
        ...     loss = steps.step([lambda points: -points.flatten(1).sum(1)], images)
        >>> steps.delta.unique().tolist()
        [-0.10000000149011612]
    """

    def __init__(self, delta: torch.Tensor, eps: float, step_size: float, momentum: float = 0.0):
        self.delta = delta
        self.eps = eps
        self.step_size = step_size
        self.momentum = momentum
        self._directions: list[torch.Tensor | float] = []

    def step(self, losses: Sequence[Loss], images: torch.Tensor) -> float:
        """Takes a step on images `[B,C,H,W]`, and returns the mean loss before it.

        Args:
            losses (list of `Callable`): One per model: images with the perturbation -> losses `[B]`.
            images (`torch.Tensor`): `[B,C,H,W]` in [0,1].
        """
        if not self._directions:
            self._directions = [0.0] * len(losses)

        total, signs = 0.0, torch.zeros_like(self.delta)
        for number, loss_fn in enumerate(losses):
            with torch.enable_grad():
                delta = self.delta.detach().requires_grad_()
                loss = at_least_float32(loss_fn((images + delta).clamp(0, 1))).mean()
            gradient = gradient_of(loss, delta)
            length = gradient.abs().mean().clamp_min(torch.finfo(gradient.dtype).tiny)
            direction = self.momentum * self._directions[number] + gradient / length
            self._directions[number] = direction
            signs += direction.sign()
            total += loss.item()

        self.delta = (self.delta + self.step_size * signs / len(losses)).clamp(-self.eps, self.eps)
        return total / len(losses)


def universal_loss(
    loss: str,
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    embed: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    cap: float,
) -> Loss:
    """Makes the loss per image that a universal perturbation climbs.

    `"ce"` is `min(CE(x + d, y), cap)` (Shafahi et al., AAAI 2020, arXiv 1811.11304), so that images that are fooled by
    far do not outweigh the others. `"cosine"` is `-cos(f(x + d), f(x))`, which asks for no labels.

    Args:
        loss (`str`): One of `UNIVERSAL_LOSSES`.
        logits_of (`Callable`), embed (`Callable`): Images in [0,1] -> logits `[B,K]`, and embeddings `[B,D]`.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` and `[B]`.
        cap (`float`): Of the cross-entropy.

    Example:
        >>> images, labels = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
        >>> flat = torch.nn.Flatten()
        >>> universal_loss("cosine", flat, flat, images, labels, cap=9.0)(images).allclose(torch.tensor(-1.0))
        True
    """
    check_choice("loss", loss, UNIVERSAL_LOSSES)
    if loss == "ce":
        return lambda points: cross_entropy(at_least_float32(logits_of(points)), labels).clamp(max=cap)
    with torch.no_grad():
        clean = at_least_float32(embed(images))
    return lambda points: -F.cosine_similarity(at_least_float32(embed(points)), clean, dim=-1)
