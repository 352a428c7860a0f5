"""The attacks of Carlini and Wagner (IEEE S&P 2017, arXiv 1608.04644): margin loss in a ball, and nearest point."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..modes import frozen
from ..registry import known
from .any_iterate import AllFooled, AnyIterate
from .ball import check_images, distance, parse_radius
from .losses import correct, margin
from .pgd import pgd


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
    """Images within `eps` by [`minimal_l2`] in L2, by PGD on the margin loss in L-inf (what papers call CW there).

    In L2 an image leaves as soon as a misclassified point lies inside its ball, and comes back as it was where none
    does; `search_steps`, `learning_rate` and `initial_const` are of [`minimal_l2`]. In L-inf see [`pgd`].
    """
    if known("norm", norm, ("l2", "linf")) == "linf":
        return pgd(classifier, images, labels, eps=eps, norm=norm, num_steps=num_steps, loss="margin", seeds=seeds)

    watch = AnyIterate(classifier, images, labels, parse_radius(eps, norm), norm)
    try:
        with frozen(classifier):
            minimal_l2(
                watch,
                images,
                labels,
                num_steps=num_steps,
                search_steps=search_steps,
                learning_rate=learning_rate,
                initial_const=initial_const,
            )
    except AllFooled:
        pass
    return watch.adversarial


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
    """The nearest misclassified point in L2 that Adam finds (Carlini and Wagner, section VI.A).

    It minimises `|x' - x|^2 + c * max(label's logit - largest other, 0)` over `x' = (tanh(w) + 1) / 2`; `c` is
    found by binary search per image.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` in [0,1] and `[B]`.
        num_steps (`int`), learning_rate (`float`): Of Adam, for each value of `c`.
        search_steps (`int`), initial_const (`float`): How many values of `c`, and the first.

    Returns:
        `torch.Tensor`: `[B,C,H,W]`; the image itself where it is misclassified or no point was found.
    """
    check_images(images, None)
    start = images.detach().float()
    best, length = start.clone(), torch.full((len(start),), torch.inf, device=start.device)
    with frozen(classifier), torch.no_grad():
        length[~correct(classifier(start).float(), labels)] = 0.0
        low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
        const = torch.full_like(length, initial_const)
        origin = torch.atanh((2 * start - 1) * (1 - 1e-6))
        for _ in range(search_steps):
            found = torch.zeros_like(length, dtype=torch.bool)
            walk = origin.clone().requires_grad_()
            adam = torch.optim.Adam([walk], lr=learning_rate)
            for _ in range(num_steps):
                with torch.enable_grad():
                    points = (torch.tanh(walk) + 1) / 2
                    logits = classifier(points).float()
                    loss = (points - start).square().flatten(1).sum(1) + const * (-margin(logits, labels)).clamp_min(0)
                    walk.grad = torch.autograd.grad(loss.sum(), walk)[0]
                adam.step()
                wrong, away = ~correct(logits, labels), distance(start, points, "l2")
                found |= wrong
                nearer = wrong & (away < length)
                best[nearer], length[nearer] = points.detach()[nearer], away.detach()[nearer]
            high = torch.where(found, const, high)
            low = torch.where(found, low, const)
            const = torch.where(high.isinf(), 10 * const, (low + high) / 2)
    return best.to(images.dtype)
