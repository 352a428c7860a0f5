"""Losses of pixels that an attack on segmentation maximises, and how many pixels are classified correctly."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from .losses import LOSSES

# Logits `[B,K,H,W]`, masks `[B,H,W]` of class indices, below 0 where ignored, and the share of the walk that is done,
# one number or `[B]` -> losses `[B,H,W]`, 0 where ignored.
DenseLoss = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | float"], torch.Tensor]


def ce(logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Cross-entropy."""
    return F.cross_entropy(logits, masks.clamp_min(-1), ignore_index=-1, reduction="none")


def margin(logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Largest wrong logit minus the label's: above 0 is misclassified."""
    labels = masks.clamp_min(0).unsqueeze(1)
    return (masks >= 0) * (logits.scatter(1, labels, -torch.inf).amax(1) - _of_label(logits, masks))


def masked_ce(logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Cross-entropy of the pixels that are still right (SEA, Croce et al., ECCV 2024, arXiv 2306.12941)."""
    return is_right(logits, masks) * ce(logits, masks)


def segpgd(logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Cross-entropy, at first of right pixels alone, in the end of all alike (SegPGD, Gu et al., arXiv 2207.12391).

    Equation: `(1 - l) [right] CE + l [wrong] CE`, `l = share / 2`.
    """
    of_wrong = torch.as_tensor(share, dtype=logits.dtype, device=logits.device).view(-1, 1, 1) / 2
    return torch.where(is_right(logits, masks), 1 - of_wrong, of_wrong) * ce(logits, masks)


def cospgd(logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Cross-entropy, weighted by the cosine of softmax and label (CosPGD, Agnihotri et al., arXiv 2302.02213).

    The weight is a constant to the gradient. It is of the softmax as in the authors' code; others took the sigmoid.
    """
    probabilities = logits.detach().softmax(1)
    return _of_label(probabilities, masks) / probabilities.norm(dim=1) * ce(logits, masks)


def js(logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Jensen-Shannon divergence of softmax and label, log 2 at most (SEA).

    Equation: `(KL(p | m) + KL(e_y | m)) / 2`, `m = (p + e_y) / 2`: a function of `p_y`, for elsewhere `p / m` is 2.
    """
    log_p = _of_label(logits.log_softmax(1), masks)
    p = log_p.exp()
    log_m = ((1 + p) / 2).log()
    return (masks >= 0) * ((1 - p) * math.log(2) + p * (log_p - log_m) - log_m) / 2


def masked_spherical(logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Minus the label's logit of logits of length 1, of the pixels that are still right (SEA)."""
    length = logits.norm(dim=1).clamp_min(torch.finfo(logits.dtype).tiny)
    return -is_right(logits, masks).to(logits.dtype) * _of_label(logits, masks) / length


DENSE_LOSSES: dict[str, DenseLoss] = {
    "ce": ce,
    "cospgd": cospgd,
    "js": js,
    "margin": margin,
    "masked_ce": masked_ce,
    "masked_spherical": masked_spherical,
    "segpgd": segpgd,
}
# Those that are of pixels alone, and no loss of an image by its one label.
OF_PIXELS = frozenset(DENSE_LOSSES) - frozenset(LOSSES)


def dense_loss(
    name: str, logits: torch.Tensor, masks: torch.Tensor, share: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """A loss of images, `[B]`: the mean over all of their pixels, of which those that are ignored count as 0.

    Args:
        name (`str`): One of `DENSE_LOSSES`.
        logits (`torch.Tensor`), masks (`torch.Tensor`): `[B,K,H,W]`, and `[B,H,W]` of class indices, below 0 where
            ignored.
        share (`float` or `torch.Tensor`): The share of the walk's steps that are done, one number or `[B]`.

    Example:
        >>> logits = torch.tensor([[[[0.0, 0.0]], [[-1.0, 0.0]]]])
        >>> dense_loss("margin", logits, torch.tensor([[[0, -1]]])).tolist()
        [-0.5]
    """
    return DENSE_LOSSES[name](logits, masks, share).flatten(1).mean(1)


def controlling_loss(name: str) -> str:
    """The loss by whose rise Auto-PGD sees whether a walk on another makes progress: cross-entropy for most (SEA).

    Example:
        >>> controlling_loss("masked_ce"), controlling_loss("masked_spherical")
        ('ce', 'masked_spherical')
    """
    return name if name in ("margin", "masked_spherical") else "ce"


def is_right(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Tells which pixels have their label's logit as the largest, `[B,H,W]`; none that is ignored has.

    Example:
        >>> is_right(torch.tensor([[[[0.0, 0.0]], [[-1.0, 0.5]]]]), torch.tensor([[[0, 0]]])).tolist()
        [[[True, False]]]
    """
    return logits.detach().argmax(1) == masks


def _of_label(values: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """What is there of the label among values `[B,K,H,W]` of all classes; of class 0 where pixels are ignored."""
    return values.gather(1, masks.clamp_min(0).unsqueeze(1)).squeeze(1)
