"""PGD that stops early, PGD-K-tau of friendly adversarial training (Zhang et al., ICML 2020, arXiv 2002.11242)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..modes import at_least_float32, frozen
from ..registry import check_choice
from .ball import round_inside
from .inputs import check_classes, check_inputs, check_logits, check_not_nan
from .losses import LOSSES, Loss, correct
from .pgd import accelerate, check_momentum, check_walk, start, step


def early_stopped_pgd(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 10,
    step_size: float | str | None = None,
    random_start: bool = True,
    start_std: float | None = None,
    momentum: float = 0.0,
    loss: str = "ce",
    tau: int = 0,
    loss_fn: Loss | None = None,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Moves each image until it has been misclassified for `tau` iterates (algorithm 1 of the paper).

    An image stays at its iterate once that is misclassified and `tau` of its iterates were before, and leaves the
    batch. This is another, weaker attack than [`pgd`], and so another recipe, for less time. It is one run on a named
    loss. The host waits for the device in every step to learn which images go on.

    Args:
        tau (`int`): How many misclassified iterates an image walks on from.
        loss_fn (`None`): Must be absent: a loss per image does not say who is misclassified.
        classifier, images, labels, eps, norm, num_steps, step_size, random_start, start_std, momentum, loss, seeds:
            As of [`pgd`]. `labels` are needed.

    Returns:
        `torch.Tensor`: As of [`pgd`].

    Raises:
        ValueError: for a number that leaves nothing to do, a negative `tau`, or a `loss_fn`.

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([1])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.0, -0.1])
        >>> adversarial = early_stopped_pgd(classifier, images, labels, eps="4/255", random_start=False)
        >>> torch.equal(adversarial, images)  # misclassified from the start
        True
    """
    if isinstance(tau, bool) or not isinstance(tau, int) or tau < 0:
        raise ValueError(f"You passed tau={tau!r}. Pass how many misclassified iterates to go on from: 0, 1, 2, ...")
    if loss_fn is not None:
        raise ValueError(
            "You passed tau with loss_fn, but the early stop is that of one run away from the label, which it finds "
            "in logits. Leave tau out, or choose an objective that attacks by a named loss."
        )
    check_choice("loss", loss, LOSSES)
    check_momentum(momentum)
    eps, step_size = check_walk(eps, norm, num_steps, step_size)
    images, labels, seeds = check_inputs(images, labels, seeds, several_labels=True)

    images = images.detach()
    centre = at_least_float32(images)
    walk = at_least_float32(start(images, eps, norm, seeds, 0, random_start, start_std)).clone()
    velocity = torch.zeros_like(walk)
    rows = torch.arange(len(images), device=images.device)
    remaining = torch.full_like(rows, tau)  # misclassified iterates that each image may still walk on from

    with frozen(classifier):
        for number in range(num_steps):
            # Which images go on, and the gradients of all
            with torch.enable_grad():
                point = walk[rows].to(images.dtype).requires_grad_()
                logits = at_least_float32(check_logits(classifier(point), point))
                if number == 0:
                    check_classes(labels, logits.shape[1])
                    check_not_nan(logits)
                fooled = ~correct(logits.detach(), labels[rows])
                going = (~fooled | (remaining[rows] > 0)).nonzero().squeeze(1)
                if not len(going):
                    break
                gradient = torch.autograd.grad(LOSSES[loss](logits, labels[rows]).sum(), point)[0]

            # The others leave the batch.
            remaining[rows] -= fooled.long()
            rows = rows[going]
            gradient = at_least_float32(gradient)[going]

            # A step
            if momentum:
                gradient = accelerate(velocity[rows], gradient, momentum)
                velocity[rows] = gradient
            walk[rows] = step(centre[rows], walk[rows], gradient, eps, norm, step_size)

    return round_inside(images, walk).detach()
