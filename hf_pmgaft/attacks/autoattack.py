"""AutoAttack (Croce and Hein, ICML 2020, arXiv 2003.01690): its versions, and those attacks that `pyautoattack` runs.

The library's runner draws noise per batch, reseeds the global generator, calls `sys.settrace(None)` and fails below
ten classes. Here its attacks are called one run at a time: all noise follows from the images' seeds, targets are as
many as there are other classes, and an image leaves at its first misclassified point inside the ball.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..registry import check_choice, check_count
from .inputs import check_inputs, count_classes
from .pyautoattack_runs import Run, library_module, run_after_run

Classifier = Callable[[torch.Tensor], torch.Tensor]

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}  # and how the library spells them


def fab(
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 100,
    restarts: int = 1,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Fast adaptive boundary attack, which looks for the nearest misclassified point (arXiv 1907.02044).

    It takes a gradient per class and step; [`fab_t`] does with one. See [`apgd`].

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :2] + torch.tensor([0.01, 0.0])
        >>> adversarial = fab(classifier, images, labels, eps="4/255", num_steps=5)
        >>> (classifier(adversarial).argmax(dim=1) != labels).tolist()
        [True]
    """
    images, labels, seeds = check_inputs(images, labels, seeds)
    check_choice("norm", norm, NORMS)
    check_count("num_steps", num_steps)
    check_count("restarts", restarts)
    kind = _fab_by_autograd(library_module("fab_pt"))

    def walk(run: Run) -> None:
        attack = kind(run.watch, norm=NORMS[norm], n_iter=num_steps, eps=run.watch.eps, device=images.device)
        is_restart = int(run.numbers[0]) > 0
        with run.seeded(attack):
            attack.attack_single_run(run.images, run.labels, use_rand_start=is_restart)

    return run_after_run(walk, _side_by_side(1, restarts), classifier, images, labels, eps, norm, seeds)


def fab_t(
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    num_steps: int = 100,
    num_targets: int = 9,
    restarts: int = 1,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Runs [`fab`] towards each of the most likely wrong classes, as AutoAttack uses it.

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return images.flatten(1)[:, :3] + torch.tensor([0.01, 0.0, 0.0])
        >>> adversarial = fab_t(classifier, images, labels, eps="4/255", num_steps=5)
        >>> (classifier(adversarial).argmax(dim=1) != labels).tolist()
        [True]
    """
    images, labels, seeds = check_inputs(images, labels, seeds)
    check_choice("norm", norm, NORMS)
    check_count("num_steps", num_steps)
    check_count("num_targets", num_targets)
    check_count("restarts", restarts)
    kind = _fab_by_autograd(library_module("fab_pt"))
    num_classes = count_classes(classifier, images)

    def walk(run: Run) -> None:
        attack = kind(run.watch, norm=NORMS[norm], n_iter=num_steps, eps=run.watch.eps, device=images.device)
        attack.target_class = 2  # which it asks for before it asks where to go
        attack.targets = run.ranking.gather(1, run.numbers.unsqueeze(1) // restarts + 1).squeeze(1)
        is_restart = int(run.numbers[0]) % restarts > 0
        with run.seeded(attack):
            attack.attack_single_run(run.images, run.labels, use_rand_start=is_restart, is_targeted=True)

    targets = min(num_targets, num_classes - 1)
    return run_after_run(walk, _side_by_side(targets, restarts), classifier, images, labels, eps, norm, seeds)


def square(
    classifier: Classifier,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    eps: float | str,
    norm: str = "linf",
    num_queries: int = 5000,
    restarts: int = 1,
    seed: int = 0,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Square attack: random search over square windows, without gradients (arXiv 1912.00049).

    Args:
        num_queries (`int`): Forward passes of a run.
        seed (`int`): Of the windows, which all images share; the rest of the noise follows from `seeds`.

    See [`apgd`] for the others.

    Example:
        >>> images, labels = torch.full((1, 3, 8, 8), 0.5), torch.tensor([0])
        >>> def classifier(images):  # no gradient is asked for
        ...     return images.flatten(1)[:, :2].detach() + torch.tensor([0.01, 0.0])
        >>> adversarial = square(classifier, images, labels, eps="4/255", num_queries=50)
        >>> (classifier(adversarial).argmax(dim=1) != labels).tolist()
        [True]
    """
    library = library_module("square")
    images, labels, seeds = check_inputs(images, labels, seeds)
    check_choice("norm", norm, NORMS)
    check_count("num_queries", num_queries)
    check_count("restarts", restarts)
    if norm != "linf" and min(images.shape[-2:]) < 15:
        raise ValueError(
            f"Square in {norm} tiles images by fifths of 3 pixels or more; yours are {images.shape[-2:]}."
        )

    def walk(run: Run) -> None:
        attack = library.SquareAttack(
            run.watch,
            norm=NORMS[norm],
            eps=run.watch.eps,
            n_queries=num_queries,
            resc_schedule=False,
            device=images.device,
        )
        with run.seeded(attack):
            attack.init_hyperparam(run.images)
            attack.attack_single_run(run.images, run.labels)

    one_by_one = [range(restart, restart + 1) for restart in range(restarts)]  # each has windows of its own
    return run_after_run(walk, one_by_one, classifier, images, labels, eps, norm, seeds, window_seed=seed)


# ---- The versions ----


# AutoAttack's versions as the attacks they run, in order; `fast` is the part that finds nearly all there is.
VERSIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "fast": ({"attack": "apgd"}, {"attack": "apgd_t"}),
    "standard": ({"attack": "apgd"}, {"attack": "apgd_t"}, {"attack": "fab_t"}, {"attack": "square"}),
    "plus": (
        {"attack": "apgd", "restarts": 5},
        {"attack": "apgd", "loss": "dlr", "restarts": 5},
        {"attack": "fab", "restarts": 5},
        {"attack": "square"},
        {"attack": "apgd_t"},
        {"attack": "fab_t"},
    ),
}


def components(version: str, num_classes: int, **ball: Any) -> list[dict[str, Any]]:
    """Lists the attacks of a version of AutoAttack, as far as the number of classes allows them.

    Below four classes there is no targeted DLR loss, below three none at all: the margin loss stands in. With two
    classes the targeted FAB is the untargeted one. In L1, `standard` takes five restarts and five targets, as its
    authors do (arXiv 2103.01208).

    Example:
        >>> [spec["attack"] for spec in components("standard", 10, eps="4/255", norm="linf")]
        ['apgd', 'apgd_t', 'fab_t', 'square']
    """
    check_choice("version", version, VERSIONS)
    specs = []
    for attack in VERSIONS[version]:
        spec = {**attack, **ball}
        if ball.get("norm") == "l1" and version != "plus":
            if spec["attack"] == "apgd":
                spec["restarts"] = 5
            if spec["attack"] == "apgd_t":
                spec["num_targets"] = 5

        # What stands in where there are few classes
        if spec["attack"] == "apgd_t" and num_classes < 4:
            spec = {"attack": "apgd", "loss": "margin", **ball}
        if spec.get("loss") == "dlr" and num_classes < 3:
            spec = {"attack": "apgd", "loss": "margin", **ball}
        if spec["attack"] == "fab_t" and num_classes < 3:
            spec = {"attack": "fab", **ball}

        if spec not in specs:
            specs.append(spec)
    return specs


# ---- What the library leaves open ----


def _side_by_side(targets: int, restarts: int) -> list[range]:
    """Runs of FAB that may go side by side: those that begin at the image, and those that begin elsewhere.

    The restarts of a target follow on each other.
    """
    if restarts == 1:
        return [range(targets)]
    firsts = range(0, targets * restarts, restarts)
    return [numbers for first in firsts for numbers in (range(first, first + 1), range(first + 1, first + restarts))]


def _fab_by_autograd(library: Any) -> type:
    class FAB(library.FABAttack_PT):
        """The original's gradients, but by `autograd.grad`, which leaves nothing in the parameters' `.grad`."""

        def get_diff_logits_grads_batch(self, images, labels):
            points, logits = self._logits(images)
            with torch.enable_grad():
                sums = [logits[:, label].sum() for label in range(logits.shape[1])]
            gradients = [torch.autograd.grad(value, points, retain_graph=True)[0] for value in sums]
            gradients = torch.stack(gradients, dim=1)

            rows = torch.arange(len(images), device=images.device)
            logits = logits.detach()
            gap = logits - logits[rows, labels].unsqueeze(1)
            gap[rows, labels] = 1e10
            return gap, gradients - gradients[rows, labels].unsqueeze(1)

        def get_diff_logits_grads_batch_targeted(self, images, labels, _):
            points, logits = self._logits(images)
            rows = torch.arange(len(images), device=images.device)
            targets = self.targets[self.predict.rows(len(images))]
            with torch.enable_grad():
                gap = logits[rows, targets] - logits[rows, labels]
                gradient = torch.autograd.grad(gap.sum(), points)[0]
            return gap.detach().unsqueeze(1), gradient.unsqueeze(1)

        def _logits(self, images):
            points = images.clone().requires_grad_()
            with torch.enable_grad():
                return points, self.predict(points).to(points.dtype)

    return FAB
