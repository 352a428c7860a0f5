"""Projected gradient descent in L-inf and L2 (Madry et al., ICLR 2018, arXiv 1706.06083); FGSM is its first step."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..modes import at_least_float32, frozen
from ..registry import check_choice, check_count
from .ball import NORMS, normal_point, parse_radius, parse_step_size, project, round_inside, uniform_point
from .inputs import check_images, check_seeds
from .losses import LOSSES, Loss, input_gradient, make_loss
from .walk import State


def pgd(
    classifier: Callable[[torch.Tensor], torch.Tensor] | None,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 10,
    step_size: float | str | None = None,
    random_start: bool = True,
    start_std: float | None = None,
    restarts: int = 1,
    momentum: float = 0.0,
    loss: str = "ce",
    targeted: bool = False,
    loss_fn: Loss | None = None,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Moves images so as to maximise a loss, within `eps` of where they were.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`. A module is run in eval mode.
        images (`torch.Tensor`): `[B,C,H,W]` in [0,1].
        labels (`torch.Tensor`): `[B]`; the classes to reach if `targeted`. Or `[B,P]`: several right ones per image,
            fewer filled up by repetition.
        eps (`float` or `str`): Radius of the ball, in the scale of the images.
        norm (`str`): `"linf"` or `"l2"`.
        num_steps (`int`): Gradient steps.
        step_size (`float` or `str`, *optional*): Length of a step, such as `"1/255"`, or in units of the radius, such
            as `"0.25eps"`; see [`default_step_size`] if not given.
        random_start (`bool`): Start uniformly in the ball instead of at the image.
        start_std (`float`, *optional*): Start at normal noise of this standard deviation instead, moved into the ball
            and [0,1] (TRADES, arXiv 1901.08573: 0.001); only with `random_start`.
        restarts (`int`): Runs from independent starts; per image the one with the highest loss is kept.
        momentum (`float`): Of the step: velocity = momentum * velocity + gradient / |gradient|_1 (Dong et al., 2018,
            arXiv 1710.06081).
        loss (`str`): `"ce"`, `"margin"` or `"dlr"`.
        targeted (`bool`): Go towards `labels` instead of away from them.
        loss_fn (`Callable`, *optional*): Images `[B,C,H,W]` -> loss per image `[B]`, in place of `loss`.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64, from which all randomness of an image follows; 0, 1, 2, ...
            if not given.

    Returns:
        `torch.Tensor`: The last iterate of the strongest restart: detached, in [0,1], inside the ball, of the images'
        dtype. Parameters' gradients and flags, training modes and the global random state are as before.

    Raises:
        ValueError: for an unknown norm or loss, or a number that leaves nothing to do.

    Example:
        >>> images, labels = torch.full((2, 3, 8, 8), 0.5), torch.tensor([0, 1])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :4]
        >>> adversarial = pgd(classifier, images, labels, eps="4/255", num_steps=10)
        >>> bool((adversarial - images).abs().max() <= 4 / 255 + 1e-6)
        True
    """
    eps, step_size = check_walk(eps, norm, num_steps, step_size)
    check_count("restarts", restarts)
    check_momentum(momentum)
    images = check_images(images)
    seeds = check_seeds(seeds, images)

    def run(restart: int) -> torch.Tensor:
        point = start(images, eps, norm, seeds, restart, random_start, start_std)
        return ascend(loss_fn, images, point, eps, norm, num_steps, step_size, momentum)

    with frozen(classifier):
        loss_fn = loss_fn or make_loss(classifier, images, labels, loss, targeted)
        strongest = run(0)
        if restarts == 1 or not random_start:
            return strongest

        # Per image the run that reached the highest loss
        highest = _without_gradient(loss_fn, strongest)
        for restart in range(1, restarts):
            adversarial = run(restart)
            loss_reached = _without_gradient(loss_fn, adversarial)
            is_stronger = loss_reached > highest
            highest = torch.where(is_stronger, loss_reached, highest)
            strongest = torch.where(is_stronger.view(-1, 1, 1, 1), adversarial, strongest)

    return strongest


def fgsm(
    classifier: Callable[[torch.Tensor], torch.Tensor] | None,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    *,
    eps: float | str,
    norm: str = "linf",
    random_start: bool = False,
    **options: Any,
) -> torch.Tensor:
    """Takes one step of length `eps` along the gradient (Goodfellow et al., ICLR 2015, arXiv 1412.6572).

    Its options are those of [`pgd`].

    Example:
        >>> images = torch.full((1, 3, 8, 8), 0.5)
        >>> adversarial = fgsm(lambda images: images.flatten(1)[:, :2], images, torch.tensor([0]), eps=0.1)
        >>> [round(value, 2) for value in adversarial[0, 0, 0, :3].tolist()]
        [0.4, 0.6, 0.5]
    """
    options.update(num_steps=1, step_size=None)  # whose default is `eps`
    return pgd(classifier, images, labels, eps=eps, norm=norm, random_start=random_start, **options)


def default_step_size(eps: float, num_steps: int) -> float:
    """Returns the length of a step where none is passed: `2.5 * eps / num_steps` (Madry et al.), `eps` for one step.

    Example:
        >>> default_step_size(0.1, num_steps=5)
        0.05
    """
    return eps if num_steps == 1 else 2.5 * eps / num_steps


def check_walk(eps: float | str, norm: str, num_steps: int, step_size: float | str | None) -> tuple[float, float]:
    """Returns radius and length of a step as numbers, or raises `ValueError` for what no walk can be made of.

    Example:
        >>> check_walk("51/255", "linf", num_steps=2, step_size="0.5eps")
        (0.2, 0.1)
    """
    check_choice("norm", norm, NORMS)
    eps = parse_radius(eps, norm)
    check_count("num_steps", num_steps)
    if step_size is None:
        return eps, default_step_size(eps, num_steps)
    return eps, parse_step_size(step_size, eps, norm)


def check_momentum(momentum: float) -> None:
    """Raises `ValueError` for a momentum that no walk goes on by.

    Example:
        >>> check_momentum(0.9)
        >>> check_momentum(-1.0)
        Traceback (most recent call last):
        ValueError: You passed momentum=-1.0, which no walk goes on by. Pass a number from 0, such as 1.0.
    """
    is_number = isinstance(momentum, numbers.Real) and not isinstance(momentum, bool)
    if not (is_number and 0 <= momentum < math.inf):
        raise ValueError(
            f"You passed momentum={momentum!r}, which no walk goes on by. Pass a number from 0, such as 1.0."
        )


def check_reach(eps: float | str, norm: str, num_steps: int, step_size: float | str | None) -> None:
    """Raises `ValueError` for a walk whose steps together are shorter than the radius: it is no attack of that radius.

    Example:
        >>> check_reach("4/255", "linf", num_steps=2, step_size="1/255")
        Traceback (most recent call last):
        ValueError: You passed 2 steps of 1/255, which together reach 0.5 of the radius 4/255. ...
    """
    radius, length = check_walk(eps, norm, num_steps, step_size)
    if length and num_steps * length < radius * (1 - 1e-6):  # one of 0 asks for the start alone
        reached = f"{num_steps * length / radius:.2g} of the radius {eps}"
        enough = math.ceil(radius / length)
        raise ValueError(
            f"You passed {num_steps} steps of {step_size}, which together reach {reached}. Take {enough} "
            f"steps, pass a step size of {default_step_size(1, num_steps):.3g}eps, or leave it out."
        )


def start(
    images: torch.Tensor,
    eps: float,
    norm: str,
    seeds: torch.Tensor,
    restart: int | torch.Tensor,
    random_start: bool,
    start_std: float | str | None,
) -> torch.Tensor:
    """Chooses where a run begins: at the image, at a random point of the ball, or at normal noise around the image."""
    if not random_start:
        return images.detach().clone()
    if start_std is None:
        return uniform_point(images, eps, norm, seeds, restart)
    return normal_point(images, eps, norm, seeds, restart, parse_radius(start_std, norm))


def step(
    images: torch.Tensor, point: torch.Tensor, gradient: torch.Tensor, eps: float, norm: str, step_size: float
) -> torch.Tensor:
    """Goes from `point` in the direction of steepest ascent, then back into the ball around `images` and into [0,1].

    Example:
        >>> images = torch.full((1, 1, 1, 2), 0.5)
        >>> gradient = torch.tensor([[[[3.0, -2.0]]]])
        >>> step(images, images, gradient, eps=0.25, norm="linf", step_size=0.125).flatten().tolist()
        [0.625, 0.375]
    """
    if norm == "linf":
        direction = gradient.sign()
    else:
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        direction = torch.where(length > 0, gradient / length.where(length > 0, 1.0), 0.0)
    return project(images, point + step_size * direction, eps, norm)


def accelerate(velocity: torch.Tensor | float, gradient: torch.Tensor, momentum: float) -> torch.Tensor:
    """Returns the velocity after one more gradient (Dong et al., 2018, arXiv 1710.06081, equation 6).

    Example:
        >>> accelerate(1.0, torch.full((1, 1, 1, 1), 8.0), momentum=0.5).item()
        1.5
    """
    size = gradient.abs().flatten(1).sum(1).clamp_min(torch.finfo(gradient.dtype).tiny).view(-1, 1, 1, 1)
    return momentum * velocity + gradient / size


def ascend(
    loss_fn: Loss,
    images: torch.Tensor,
    point: torch.Tensor,
    eps: float,
    norm: str,
    num_steps: int,
    step_size: float,
    momentum: float,
) -> torch.Tensor:
    """Walks from `point` uphill, and returns where it ends, in the images' dtype.

    Example:
        >>> images = torch.full((1, 1, 1, 1), 0.5)
        >>> def brightness(images):
        ...     return images.flatten(1).mean(1)
        >>> ascend(brightness, images, images, 0.25, "linf", num_steps=4, step_size=0.125, momentum=0.0).item()
        0.75
    """
    images = images.detach()
    # Half precision cannot hold a point of the ball exactly, so the walk is in float32 at least.
    centre = at_least_float32(images)
    walk = at_least_float32(point)
    velocity: torch.Tensor | float = 0.0

    for _ in range(num_steps):
        gradient = input_gradient(loss_fn, walk.to(images.dtype))
        if momentum:
            velocity = accelerate(velocity, gradient, momentum)
            gradient = velocity
        walk = step(centre, walk, gradient, eps, norm, step_size)

    return round_inside(images, walk).detach()


@dataclass(frozen=True)
class PGDWalk:
    """Restarts of [`pgd`] as walks that end at their first misclassified point; see `hf_pmgaft.attacks.walk`."""

    eps: float
    norm: str
    num_steps: int
    step_size: float
    random_start: bool
    start_std: float | None
    restarts: int
    momentum: float
    loss_name: str

    ranks_classes = False

    @property
    def num_walks(self) -> int:
        """One, where all restarts would begin at the image."""
        return self.restarts if self.random_start else 1

    def begin(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        numbers: torch.Tensor,
        ranking: torch.Tensor | None,
    ) -> State:
        points = start(images, self.eps, self.norm, seeds, numbers, self.random_start, self.start_std)
        state = {"images": images, "labels": labels, "points": points, "steps": torch.zeros_like(numbers)}
        if self.momentum:
            state["velocity"] = torch.zeros_like(images)
        return state

    def loss(self, state: State, logits: torch.Tensor) -> torch.Tensor:
        return LOSSES[self.loss_name](logits, state["labels"])

    def advance(self, state: State, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        if self.momentum:
            gradient = accelerate(state["velocity"], gradient, self.momentum)
            state["velocity"] = gradient
        state["points"] = step(state["images"], state["points"], gradient, self.eps, self.norm, self.step_size)
        state["steps"] += 1
        return state["steps"] == self.num_steps


def pgd_walk(
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 10,
    step_size: float | str | None = None,
    random_start: bool = True,
    start_std: float | None = None,
    restarts: int = 1,
    momentum: float = 0.0,
    loss: str = "ce",
) -> PGDWalk:
    """The walks of [`pgd`] with these options.

    Example:
        >>> pgd_walk(eps="51/255", num_steps=5, restarts=3).num_walks
        3
    """
    radius, length = check_walk(eps, norm, num_steps, step_size)
    check_choice("loss", loss, LOSSES)
    check_count("restarts", restarts)
    check_momentum(momentum)
    return PGDWalk(radius, norm, num_steps, length, random_start, start_std, restarts, momentum, loss)


def fgsm_walk(*, eps: float | str, norm: str = "linf", random_start: bool = False, **options: Any) -> PGDWalk:
    """The walk of [`fgsm`] with these options.

    Example:
        >>> fgsm_walk(eps="51/255").step_size
        0.2
    """
    options.update(num_steps=1, step_size=None)
    return pgd_walk(eps=eps, norm=norm, random_start=random_start, **options)


@torch.no_grad()
def _without_gradient(loss_fn: Loss, images: torch.Tensor) -> torch.Tensor:
    return at_least_float32(loss_fn(images))
