"""The attacks of Carlini and Wagner (IEEE S&P 2017, arXiv 1608.04644): margin loss in a ball, and nearest point."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from ..modes import frozen
from ..registry import check_choice, check_count
from .any_iterate import AllFooled, AnyIterate
from .ball import distance, parse_radius
from .inputs import check_classes, check_inputs, check_logits, check_not_nan
from .losses import correct, margin
from .pgd import PGDWalk, pgd, pgd_walk


def cw(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "l2",
    num_steps: int = 100,
    search_steps: int = 5,
    learning_rate: float = 0.01,
    initial_const: float = 1.0,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Looks for misclassified points within `eps`: by [`minimal_l2`] in L2, by PGD on the margin loss in L-inf.

    The latter is what papers call CW there. In L2 an image leaves as soon as a misclassified point lies inside its
    ball, and comes back as it was where none does; `search_steps`, `learning_rate` and `initial_const` are of
    [`minimal_l2`]. In L-inf see [`pgd`].

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> adversarial = cw(classifier, images, labels, eps=0.5, num_steps=20)
        >>> correct(classifier(adversarial), labels).tolist()
        [False]
    """
    check_choice("norm", norm, ("l2", "linf"))
    if norm == "linf":
        return pgd(classifier, images, labels, eps=eps, norm=norm, num_steps=num_steps, loss="margin", seeds=seeds)

    images, labels, _ = check_inputs(images, labels, seeds, several_labels=True)
    watch = AnyIterate(classifier, images, labels, parse_radius(eps, norm), norm)
    with frozen(classifier), contextlib.suppress(AllFooled):
        minimal_l2(
            watch,
            images,
            labels,
            num_steps=num_steps,
            search_steps=search_steps,
            learning_rate=learning_rate,
            initial_const=initial_const,
        )
    return watch.adversarial


def cw_walk(*, eps: float | str, norm: str = "l2", num_steps: int = 100, **of_l2: Any) -> PGDWalk | None:
    """The walk of [`cw`] with these options in L-inf; in L2 it is none.

    Example:
        >>> cw_walk(eps="4/255", norm="linf").loss_name
        'margin'
    """
    if norm == "l2":
        return None
    return pgd_walk(eps=eps, norm=norm, num_steps=num_steps, loss="margin")


def minimal_l2(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    num_steps: int = 1000,
    search_steps: int = 9,
    learning_rate: float = 0.01,
    initial_const: float = 1.0,
) -> torch.Tensor:
    """Finds the nearest misclassified point in L2 by Adam (Carlini and Wagner, section VI.A).

    It minimises `|x' - x|^2 + c * max(label's logit - largest other, 0)` over `x' = (tanh(w) + 1) / 2`; `c` is
    found by binary search per image.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` in [0,1] and `[B]`.
        num_steps (`int`), learning_rate (`float`): Of Adam, for each value of `c`.
        search_steps (`int`), initial_const (`float`): How many values of `c`, and the first.

    Returns:
        `torch.Tensor`: `[B,C,H,W]`; the image itself where it is misclassified or no point was found.

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> nearest = minimal_l2(classifier, images, labels, num_steps=100)
        >>> round(distance(images, nearest, "l2").item(), 3)  # to the line between both classes: 0.01 / sqrt(2)
        0.007
    """
    images, labels, _ = check_inputs(images, labels, None, several_labels=True)
    check_count("num_steps", num_steps)
    check_count("search_steps", search_steps)
    centre = images.detach().float()
    with frozen(classifier), torch.no_grad():
        nearest = centre.clone()
        length = torch.full((len(centre),), torch.inf, device=centre.device)  # of the nearest perturbation
        logits = check_logits(classifier(centre), centre).float()
        check_classes(labels, logits.shape[1])
        check_not_nan(logits)
        length[~correct(logits, labels)] = 0.0

        # The binary search for `c`: too small below `low`, large enough from `high` on
        low = torch.zeros_like(length)
        high = torch.full_like(length, torch.inf)
        const = torch.full_like(length, initial_const)
        for _ in range(search_steps):
            fooled = _descend(classifier, centre, labels, const, num_steps, learning_rate, nearest, length)
            high = torch.where(fooled, const, high)
            low = torch.where(fooled, low, const)
            const = torch.where(high.isinf(), 10 * const, (low + high) / 2)

    return nearest.to(images.dtype)


def _descend(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    centre: torch.Tensor,
    labels: torch.Tensor,
    const: torch.Tensor,
    num_steps: int,
    learning_rate: float,
    nearest: torch.Tensor,
    length: torch.Tensor,
) -> torch.Tensor:
    """Minimises for one `c` per image; keeps nearer points in `nearest` and `length`, and says where there was any."""
    fooled = torch.zeros_like(length, dtype=torch.bool)
    walk = torch.atanh((2 * centre - 1) * (1 - 1e-6)).requires_grad_()
    adam = torch.optim.Adam([walk], lr=learning_rate)
    for _ in range(num_steps):
        with torch.enable_grad():
            points = (torch.tanh(walk) + 1) / 2
            logits = check_logits(classifier(points), points).float()
            squared_length = (points - centre).square().flatten(1).sum(1)
            loss = squared_length + const * (-margin(logits, labels)).clamp_min(0)
            walk.grad = torch.autograd.grad(loss.sum(), walk)[0]
        adam.step()

        wrong = ~correct(logits, labels)
        away = distance(centre, points, "l2").detach()
        nearer = wrong & (away < length)
        nearest[nearer] = points.detach()[nearer]
        length[nearer] = away[nearer]
        fooled |= wrong
    return fooled
