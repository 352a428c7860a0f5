"""Expectation over transformation, against a classifier that draws at random (Athalye et al., ICML 2018, 1802.00420).

Each step goes by the mean over fresh draws, and all walks go to their ends: an any-iterate rule would count the luck
of single draws, of which a walk sees as many as it likes. Walks also go to their ends on a bare classifier, if it is a
defended one that judges.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import torch

from ..modes import at_least_float32, frozen
from ..noise import draw_seeds
from .ball import inside
from .inputs import check_classes, check_inputs, check_logits, check_not_nan
from .losses import gradient_of, margin
from .spec import AttackSpec
from .walk import State, Walk

CHOICE_DRAWS = 8  # fresh draws that points of an image are compared by

# Images in [0,1] `[B,C,H,W]` and seeds `[B]` -> logits `[B,K]`.
RandomClassifier = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def attack_expected(
    spec: AttackSpec,
    classifier: RandomClassifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    *,
    class_names: Sequence[str],
) -> torch.Tensor:
    """Runs an attack on what a random classifier does on average over `eot` draws a step, one if it names none.

    Walks go to their ends. Of these, and of the best points of APGD, which one draw may have made the best, an image
    keeps the one that has the highest mean margin on draws that chose none of them. Attacks that are no walks see the
    mean logits of an image, and may stop at a point where these are wrong.

    Args:
        spec (`AttackSpec`): A single attack.
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` and seeds `[B]` of a draw each -> logits `[B,K]`.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` in [0,1] and `[B]`.
        seeds (`torch.Tensor`): `[B]`, int64. All draws of an image follow from its seed, whatever stands beside it.
        class_names (`list[str]`): One per logit.

    Returns:
        `torch.Tensor`: `[B,C,H,W]`, as the threat allows them. Whether they fool the classifier, other draws must say.

    Raises:
        FloatingPointError: if logits are NaN or infinite.

    Example:
        >>> from hf_pmgaft.noise import normal_noise
        >>> def classifier(images, seeds):
        ...     return (images + 0.01 * normal_noise(seeds, images.shape[1:])).flatten(1)[:, :2]
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> spec = AttackSpec.parse("pgd,eps=8/255,attacker=through,eot=4")
        >>> seeds, class_names = torch.tensor([7]), ["frog", "newt"]
        >>> adversarial = attack_expected(spec, classifier, images, labels, seeds, class_names=class_names)
        >>> [round(255 * value) for value in (adversarial - images)[0, 0, 0, :2].tolist()]
        [-8, 8]
    """
    draws = spec.options.get("eot", 1)
    walk = spec.walk(len(class_names))
    if walk is not None:
        return walk_to_the_ends(
            walk, classifier, images, labels, seeds, eps=spec.radius, norm=spec.norm, draws=draws, choices=CHOICE_DRAWS
        )

    # Image by image, since a draw belongs to an image, and these attacks do not say whose points they ask about
    alone = []
    for image, label, seed in zip(images.split(1), labels.split(1), seeds.split(1), strict=True):
        mean = _MeanLogits(classifier, seed, draws)
        alone.append(spec.run(mean, image, label, seed, class_names=class_names))
    return torch.cat(alone)


def attack_to_the_end(
    spec: AttackSpec,
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    *,
    class_names: Sequence[str],
) -> torch.Tensor:
    """Runs an attack on a classifier without draws, but not for it: for whoever judges the points afterwards.

    Walks do not stop at the first misclassified point, which lies so near the decision that others still get it right.
    Attacks that are no walks return what they return.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,C,H,W]` -> logits `[B,K]`.
        spec, images, labels, seeds, class_names: As of [`attack_expected`].

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> spec = AttackSpec.parse("pgd,eps=8/255")
        >>> seeds, class_names = torch.tensor([7]), ["frog", "newt"]
        >>> adversarial = attack_to_the_end(spec, classifier, images, labels, seeds, class_names=class_names)
        >>> round(255 * (adversarial - images).abs().amax().item())
        8
    """
    walk = spec.walk(len(class_names))
    if walk is None:
        return spec.run(classifier, images, labels, seeds, class_names=class_names)
    return walk_to_the_ends(
        walk, lambda points, _: classifier(points), images, labels, seeds, eps=spec.radius, norm=spec.norm
    )


@torch.no_grad()
def walk_to_the_ends(
    walk: Walk,
    classifier: RandomClassifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    *,
    eps: float,
    norm: str,
    draws: int = 1,
    choices: int = 1,
) -> torch.Tensor:
    """Runs all walks of a batch to their ends, whatever they meet, and keeps the best point of each image.

    Args:
        walk (`Walk`): The attack.
        classifier, images, labels, seeds: As of [`attack_expected`].
        eps (`float`), norm (`str`): The balls.
        draws (`int`), choices (`int`): Draws of a step, and of the comparison of points.

    Example:
        >>> from hf_pmgaft.attacks.pgd import pgd_walk
        >>> images, labels, seeds = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0]), torch.tensor([7])
        >>> def classifier(images, seeds):
        ...     return images.flatten(1)[:, :2]
        >>> walk = pgd_walk(eps=0.1)
        >>> adversarial = walk_to_the_ends(walk, classifier, images, labels, seeds, eps=0.1, norm="linf")
        >>> [round(value, 2) for value in adversarial[0, 0, 0, :2].tolist()]
        [0.4, 0.6]
    """
    images, labels, seeds = check_inputs(images, labels, seeds, several_labels=True)
    images = at_least_float32(images)
    fresh = (draw_seeds(seeds, "attack", index) for index in itertools.count())  # no draw is made twice
    best = _Best(classifier, labels, [draw_seeds(seeds, "choice", index) for index in range(choices)])
    with frozen(classifier):
        ranking = _rank(walk, classifier, images, labels, itertools.islice(fresh, draws))
        for number in range(walk.num_walks):
            state = walk.begin(images, labels, seeds, torch.full_like(seeds, number), ranking)
            is_over = torch.zeros_like(seeds, dtype=torch.bool)
            while not is_over.all():  # walks of one attack are equally long
                loss, gradient = expected_gradient(walk, state, classifier, itertools.islice(fresh, draws))
                is_over = walk.advance(state, loss, gradient)
            for points in _ends(state, eps, norm):
                best.offer(points)
    return best.points


def expected_gradient(
    walk: Walk, state: State, classifier: RandomClassifier, draws: Iterable[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss `[S]` of walks at their points over some draws, and its gradient `[S,C,H,W]`.

    Args:
        draws (iterable of `torch.Tensor`): Seeds `[S]` of each draw.

    Example:
        >>> from hf_pmgaft.attacks.pgd import pgd_walk
        >>> walk, one = pgd_walk(eps=0.1, loss="margin"), torch.tensor([0])
        >>> state = walk.begin(torch.full((1, 1, 1, 2), 0.5), one, one, one, None)
        >>> def classifier(images, seeds):
        ...     return images.flatten(1) * seeds.view(-1, 1)
        >>> expected_gradient(walk, state, classifier, [torch.tensor([2]), torch.tensor([4])])[1].flatten().tolist()
        [-3.0, 3.0]
    """
    losses, gradients = [], []
    for seeds in draws:
        with torch.enable_grad():
            points = state["points"].detach().requires_grad_()
            loss = walk.loss(state, _logits(classifier, points, seeds))
            total = loss.sum()
        losses.append(loss.detach())
        gradients.append(gradient_of(total, points))
    return sum(losses) / len(losses), sum(gradients) / len(gradients)


def _rank(
    walk: Walk,
    classifier: RandomClassifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    draws: Iterable[torch.Tensor],
) -> torch.Tensor:
    """The label of each image, and then the other classes from the most to the least likely on average."""
    logits = sum(_logits(classifier, images, seeds) for seeds in draws)
    check_classes(labels, logits.shape[1])
    check_not_nan(logits)
    logits = logits.scatter(1, labels.view(len(labels), -1), torch.inf)
    return logits.sort(dim=1)[1].flip(1)[:, : walk.num_walks + 1]


def _ends(state: State, eps: float, norm: str) -> list[torch.Tensor]:
    """Where walks have ended, and the points of the highest loss, if they keep them."""
    end = state["points"].clamp(0, 1)
    if "best_points" not in state:
        return [end]
    best = state["best_points"].clamp(0, 1)
    is_inside = inside(state["images"], best, eps, norm)  # in L1, a walk begins in larger balls
    return [end, torch.where(is_inside.view(-1, 1, 1, 1), best, end)]


class _Best:
    """Per image the point of the highest mean margin, over draws that are the same for all points of an image."""

    def __init__(self, classifier: RandomClassifier, labels: torch.Tensor, draws: list[torch.Tensor]):
        self.classifier = classifier
        self.labels = labels
        self.draws = draws
        self.points: torch.Tensor | None = None
        self._margins: torch.Tensor | None = None

    def offer(self, points: torch.Tensor) -> None:
        """Keeps those points that are better than the best before them."""
        if self.points is None:  # which may stay alone, so that it is compared with nothing
            self.points = points
            return
        if self._margins is None:
            self._margins = self._margins_of(self.points)
        margins = self._margins_of(points)
        is_better = margins > self._margins
        self._margins = torch.where(is_better, margins, self._margins)
        self.points = torch.where(is_better.view(-1, 1, 1, 1), points, self.points)

    def _margins_of(self, points: torch.Tensor) -> torch.Tensor:
        margins = [margin(_logits(self.classifier, points, seeds), self.labels) for seeds in self.draws]
        return sum(margins) / len(margins)


def _logits(classifier: RandomClassifier, points: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    return at_least_float32(check_logits(classifier(points, seeds), points))


class _MeanLogits:
    """A classifier of points of one image: the mean logits over draws, which are fresh in every call."""

    def __init__(self, classifier: RandomClassifier, seed: torch.Tensor, draws: int):
        self.classifier = classifier
        self.seed = seed
        self.draws = draws
        self.drawn = 0

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        total = 0.0
        for index in range(self.drawn, self.drawn + self.draws):
            total = total + _logits(
                self.classifier, points, draw_seeds(self.seed, "attack", index).expand(len(points))
            )
        self.drawn += self.draws
        return total / self.draws
