"""Losses that an attack maximises, and which images are classified correctly."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from ..registry import check_choice
from .inputs import check_classes, check_labels, check_logits, check_not_nan

Loss = Callable[[torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per sample: `[B,K], [B] -> [B]`.

    Of labels `[B,P]`, that of any of them (MIL-NCE, Miech et al., CVPR 2020, arXiv 1912.06430, equation 1).

    Example:
        >>> round(cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item(), 4)  # log 2
        0.6931
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none")
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, labels, False)
    return logits.logsumexp(1) - logits.masked_fill(others, -torch.inf).logsumexp(1)


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Largest wrong logit minus the label's (Carlini and Wagner, 2017, arXiv 1608.04644): above 0 is misclassified.

    Of labels `[B,P]`, minus the largest of theirs.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0, 0.5]]), torch.tensor([0])).tolist()
        [-2.0]
    """
    labels = labels.view(len(labels), -1)
    return logits.scatter(1, labels, -torch.inf).amax(1) - logits.gather(1, labels).amax(1)


def dlr(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Difference of logits ratio (Croce and Hein, ICML 2020, arXiv 2003.01690, equation 6); at least 3 classes.

    Example:
        >>> dlr(torch.tensor([[3.0, 1.0, 0.5]]), torch.tensor([0])).tolist()
        [-0.800000011920929]
    """
    if logits.shape[1] < 3:
        raise ValueError(
            f"The DLR loss divides by the third largest logit, but there are {logits.shape[1]} classes. Use the "
            "margin loss."
        )
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Targeted DLR (same paper, equation 7) of `targets` against the `labels` predicted at the start; 4 classes.

    Example:
        >>> logits = torch.tensor([[3.0, 2.0, 1.0, 1.0]])
        >>> targeted_dlr(logits, targets=torch.tensor([1]), labels=torch.tensor([0])).tolist()
        [-0.5]
    """
    if logits.shape[1] < 4:
        raise ValueError(
            f"The targeted DLR loss needs the fourth largest logit, but there are {logits.shape[1]} classes. Use the "
            "margin loss."
        )
    top = logits.topk(4, dim=1).values
    scale = (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)
    return (_logit_of(targets, logits) - _logit_of(labels, logits)) / scale


def _logit_of(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ce": cross_entropy,
    "dlr": dlr,
    "margin": margin,
}


def make_loss(
    classifier: Callable[[torch.Tensor], torch.Tensor] | None,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    loss: str,
    targeted: bool = False,
) -> Loss:
    """Makes the named loss per image, as a function of the images.

    Example:
        >>> loss_fn = make_loss(lambda images: images.flatten(1), torch.ones(1, 1, 1, 2), torch.tensor([0]), "margin")
        >>> loss_fn(torch.tensor([[[[0.25, 0.75]]]])).tolist()
        [0.5]
    """
    check_choice("loss", loss, LOSSES)
    if labels is None or classifier is None:
        raise ValueError("You passed no labels or no classifier, which a named loss needs. Pass them, or `loss_fn`.")
    labels = check_labels(labels, images, several=True)
    is_checked = False

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        nonlocal is_checked
        logits = at_least_float32(check_logits(classifier(x), x))
        if not is_checked:  # once, since these checks wait for the device
            check_classes(labels, logits.shape[1])
            check_not_nan(logits)
            is_checked = True
        return logits

    if not targeted:
        return lambda x: LOSSES[loss](logits_of(x), labels)
    if loss == "dlr":
        targets = check_labels(labels, images)  # one of them, since the loss compares two classes
        with torch.no_grad():
            predicted = check_logits(classifier(images), images).argmax(1)
        return lambda x: targeted_dlr(logits_of(x), targets, predicted)
    return lambda x: -LOSSES[loss](logits_of(x), labels)


def input_gradient(loss_fn: Loss, images: torch.Tensor) -> torch.Tensor:
    """Computes the gradient of each image's loss at `images` `[B,C,H,W]`, of their shape, float32 at least.

    Raises:
        ValueError: for a loss that does not follow from the images by what autograd knows.

    Example:
        >>> input_gradient(lambda images: images.square().flatten(1).sum(1), torch.full((1, 1, 1, 1), 0.25)).item()
        0.5
    """
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        total = at_least_float32(loss_fn(point)).sum()
    return gradient_of(total, point)


def gradient_of(total: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Computes the gradient of a sum of losses at the point that they were made of, float32 at least.

    Raises:
        ValueError: for losses that do not follow from the point by what autograd knows.

    Example:
        >>> point = torch.tensor([3.0], requires_grad=True)
        >>> gradient_of(point.square().sum(), point).tolist()
        [6.0]
    """
    gradient = torch.autograd.grad(total, point, allow_unused=True)[0] if total.requires_grad else None
    if gradient is None:
        raise ValueError(
            "The loss has no gradient at the images, by which an attack finds its way. Leave out detach(), no_grad() "
            "and NumPy in what leads from them to it."
        )
    return at_least_float32(gradient)


def correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Tells which images are classified correctly, `[B,K], [B] -> [B]`; one that shares the first place is not.

    Of labels `[B,P]` any of an image's P is correct; fewer are filled up by repetition.

    Example:
        >>> correct(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0])).tolist()
        [True, False]
    """
    labels = labels.view(len(labels), -1)
    logit_of_label = logits.gather(1, labels).amax(1, keepdim=True)
    return (logits.scatter(1, labels, -torch.inf) < logit_of_label).all(1)
