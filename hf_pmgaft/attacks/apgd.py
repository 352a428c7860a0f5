"""Auto-PGD: PGD whose step size adapts itself (Croce and Hein, ICML 2020, arXiv 2003.01690; L1: 2103.01208)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..registry import check_choice, check_count
from .apgd_steps import DenseSteps, SparseSteps
from .ball import parse_radius, round_inside
from .full_batches import walk_all
from .inputs import check_inputs, count_classes
from .losses import LOSSES, targeted_dlr
from .walk import State

Classifier = Callable[[torch.Tensor], torch.Tensor]

NORMS = ("linf", "l2", "l1")


def apgd(
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 100,
    restarts: int = 1,
    loss: str = "ce",
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Auto-PGD: PGD with momentum whose step size adapts itself (arXiv 2003.01690, section 3; L1: 2103.01208).

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` in [0,1] and `[B]`, or `[B,1]`.
        eps (`float` or `str`), norm (`str`): The ball; `"linf"`, `"l2"` or `"l1"`.
        num_steps (`int`), restarts (`int`): Steps of a run, and runs.
        loss (`str`): `"ce"`, `"dlr"` (three classes or more) or `"margin"`.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64; 0, 1, 2, ... if not given.

    Returns:
        `torch.Tensor`: The first misclassified point inside the ball; the image itself where none was met.

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> adversarial = apgd(classifier, images, labels, eps="4/255", num_steps=5)
        >>> (classifier(adversarial).argmax(dim=1) != labels).tolist()
        [True]
    """
    images, labels, seeds = check_inputs(images, labels, seeds)
    walk = apgd_walk(eps=eps, norm=norm, num_steps=num_steps, restarts=restarts, loss=loss)
    return _attack(walk, classifier, images, labels, seeds, eps, norm)


def apgd_t(
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 100,
    num_targets: int = 9,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Auto-PGD on the targeted DLR loss, towards each of the most likely wrong classes (same paper, equation 7).

    At most `num_targets` classes, fewer where there are not so many; at least four classes. See [`apgd`].

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :4] + torch.tensor([0.01, 0.0, 0.0, 0.0])
        >>> adversarial = apgd_t(classifier, images, labels, eps="4/255", num_steps=5)
        >>> (classifier(adversarial).argmax(dim=1) != labels).tolist()
        [True]
    """
    images, labels, seeds = check_inputs(images, labels, seeds)
    num_classes = count_classes(classifier, images)
    walk = apgd_t_walk(eps=eps, norm=norm, num_steps=num_steps, num_targets=num_targets, num_classes=num_classes)
    return _attack(walk, classifier, images, labels, seeds, eps, norm)


def _attack(
    walk: APGDWalk | TargetedAPGDWalk,
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    eps: float | str,
    norm: str,
) -> torch.Tensor:
    adversarial = walk_all(walk, classifier, images, labels, seeds, parse_radius(eps, norm), norm)
    return round_inside(images.detach(), adversarial)


@dataclass(frozen=True)
class APGDWalk:
    """Auto-PGD away from the labels, as walks from random starts. [`apgd_walk`] makes one of checked options.

    Args:
        steps (`DenseSteps` or `SparseSteps`): Those of the norm.
        num_walks (`int`): Restarts.
        loss_name (`str`): One of `LOSSES`.

    Example:
        >>> walk = APGDWalk(DenseSteps(eps=0.1, norm="l2", num_steps=10), num_walks=2, loss_name="margin")
        >>> state = {"labels": torch.tensor([0])}
        >>> walk.loss(state, torch.tensor([[3.0, 1.0]])).item()
        -2.0
    """

    steps: DenseSteps | SparseSteps
    num_walks: int
    loss_name: str
    ranks_classes = False

    def begin(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        numbers: torch.Tensor,
        ranking: torch.Tensor | None,
    ) -> State:
        return {"labels": labels, **self.steps.begin(images, seeds, numbers)}

    def loss(self, state: State, logits: torch.Tensor) -> torch.Tensor:
        return LOSSES[self.loss_name](logits, state["labels"])

    def advance(self, state: State, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return self.steps.advance(state, loss, gradient)


@dataclass(frozen=True)
class TargetedAPGDWalk:
    """Auto-PGD on the targeted DLR loss, a walk towards each of the most likely wrong classes (equation 7).

    The labels are those that images are classified as. [`apgd_t_walk`] makes one of checked options.

    Args:
        steps (`DenseSteps` or `SparseSteps`): Those of the norm.
        num_walks (`int`): Targets, fewer than there are classes.

    Example:
        >>> walk = TargetedAPGDWalk(DenseSteps(eps=0.1, norm="l2", num_steps=10), num_walks=2)
        >>> image, label, seed, number = torch.full((1, 3, 8, 8), 0.5), *torch.tensor([[2], [7], [1]])
        >>> state = walk.begin(image, label, seed, number, ranking=torch.tensor([[2, 3, 0]]))
        >>> state["targets"].tolist()
        [0]
    """

    steps: DenseSteps | SparseSteps
    num_walks: int
    ranks_classes = True

    def begin(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        numbers: torch.Tensor,
        ranking: torch.Tensor | None,
    ) -> State:
        targets = ranking.gather(1, numbers.unsqueeze(1) + 1).squeeze(1)
        return {"labels": labels, "targets": targets, **self.steps.begin(images, seeds, numbers)}

    def loss(self, state: State, logits: torch.Tensor) -> torch.Tensor:
        return targeted_dlr(logits, state["targets"], state["labels"])

    def advance(self, state: State, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return self.steps.advance(state, loss, gradient)


def apgd_walk(
    *, eps: float | str, norm: str = "linf", num_steps: int = 100, restarts: int = 1, loss: str = "ce"
) -> APGDWalk:
    """The walks of [`apgd`] by its options, checked.

    Example:
        >>> apgd_walk(eps="4/255", restarts=5).num_walks
        5
    """
    check_choice("loss", loss, LOSSES)
    check_count("restarts", restarts)
    return APGDWalk(_steps(eps, norm, num_steps), restarts, loss)


def apgd_t_walk(
    *, eps: float | str, norm: str = "linf", num_steps: int = 100, num_targets: int = 9, num_classes: int
) -> TargetedAPGDWalk:
    """The walks of [`apgd_t`] by its options, checked, for a classifier of so many classes.

    Example:
        >>> apgd_t_walk(eps="4/255", num_classes=5).num_walks
        4
    """
    check_count("num_targets", num_targets)
    if num_classes < 4:
        raise ValueError(
            f"APGD-T needs the loss of at least 4 classes, but there are {num_classes}. Use "
            '"apgd" with the margin loss, or "autoattack", which does so by itself.'
        )
    return TargetedAPGDWalk(_steps(eps, norm, num_steps), min(num_targets, num_classes - 1))


def _steps(eps: float | str, norm: str, num_steps: int) -> DenseSteps | SparseSteps:
    check_choice("norm", norm, NORMS)
    check_count("num_steps", num_steps)
    radius = parse_radius(eps, norm)
    if norm == "l1":
        return SparseSteps(radius, num_steps)
    return DenseSteps(radius, norm, num_steps)
