"""The attacks of AutoAttack (Croce and Hein, ICML 2020, arXiv 2003.01690), run by `pyautoattack`.

The library's runner draws noise per batch, reseeds the global generator, calls `sys.settrace(None)` and fails below
ten classes. Here its attacks are called one run at a time: all noise follows from the images' seeds, targets are as
many as there are other classes, and an image leaves at its first misclassified point inside the ball.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import torch

from ..modes import frozen
from ..noise import normal_noise, uniform_noise
from ..registry import known
from .any_iterate import AllFooled, AnyIterate
from .ball import check_images, parse_radius, round_inside
from .losses import correct
from .losses import margin as margin_loss

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
APGD_LOSSES = ("ce", "dlr", "margin")
_QUIET = logging.getLogger("hf_pmgaft.autoattack")
_QUIET.disabled = True


def apgd(
    classifier: Callable[[torch.Tensor], torch.Tensor],
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
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,C,H,W]` in [0,1] and `[B]`.
        eps (`float` or `str`), norm (`str`): The ball; `"linf"`, `"l2"` or `"l1"`.
        num_steps (`int`), restarts (`int`): Steps of a run, and runs.
        loss (`str`): `"ce"`, `"dlr"` (three classes or more) or `"margin"`.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64; 0, 1, 2, ... if not given.

    Returns:
        `torch.Tensor`: The first misclassified point inside the ball; the image itself where none was met.
    """
    library, norm = _library("autopgd_base"), known("norm", norm, NORMS)
    known("loss", loss, APGD_LOSSES)

    def run(watch, x, y, restart):
        kind = _margin_apgd(library) if loss == "margin" else library.APGDAttack
        options = {"n_iter": num_steps, "loss": "ce" if loss == "ce" else "dlr", "logger": _QUIET, "device": x.device}
        attack = kind(watch, norm=NORMS[norm], eps=parse_radius(eps, norm), **options)
        _apgd_run(attack, x, y)

    return _runs(library, run, range(restarts), classifier, images, labels, eps, norm, seeds)


def apgd_t(
    classifier: Callable[[torch.Tensor], torch.Tensor],
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
    """
    library, norm = _library("autopgd_base"), known("norm", norm, NORMS)
    ranking = _ranking(classifier, images)
    _at_least(4, ranking.shape[1], "APGD-T")

    def run(watch, x, y, target):
        options = {"n_iter": num_steps, "logger": _QUIET, "device": x.device}
        attack = library.APGDAttack_targeted(watch, norm=NORMS[norm], eps=parse_radius(eps, norm), **options)
        attack.y_target = ranking[watch.places, target]
        _apgd_run(attack, x, y)

    targets = range(1, min(num_targets, ranking.shape[1] - 1) + 1)
    return _runs(library, run, targets, classifier, images, labels, eps, norm, seeds)


def fab(
    classifier: Callable[[torch.Tensor], torch.Tensor],
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
    """
    library, norm = _library("fab_base"), known("norm", norm, NORMS)

    def run(watch, x, y, restart):
        attack = _fab(watch, x, eps, norm, num_steps)
        attack.attack_single_run(x, y, use_rand_start=restart > 0)

    return _runs(library, run, range(restarts), classifier, images, labels, eps, norm, seeds)


def fab_t(
    classifier: Callable[[torch.Tensor], torch.Tensor],
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
    """[`fab`] towards each of the most likely wrong classes, as AutoAttack uses it."""
    library, norm = _library("fab_base"), known("norm", norm, NORMS)
    num_classes = _ranking(classifier, images[:1]).shape[1]

    def run(watch, x, y, round_):
        target, restart = round_
        attack = _fab(watch, x, eps, norm, num_steps)
        attack.target_class = target + 1
        attack.attack_single_run(x, y, use_rand_start=restart > 0, is_targeted=True)

    targets = range(1, min(num_targets, num_classes - 1) + 1)
    rounds = [(target, restart) for target in targets for restart in range(restarts)]
    return _runs(library, run, rounds, classifier, images, labels, eps, norm, seeds)


def square(
    classifier: Callable[[torch.Tensor], torch.Tensor],
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
    """
    library, norm = _library("square"), known("norm", norm, NORMS)

    def run(watch, x, y, restart):
        options = {"n_queries": num_queries, "resc_schedule": False, "device": x.device}
        attack = library.SquareAttack(watch, norm=NORMS[norm], eps=parse_radius(eps, norm), **options)
        attack.init_hyperparam(x)
        attack.attack_single_run(x, y)

    if norm != "linf" and min(images.shape[-2:]) < 15:
        raise ValueError(
            f"Square in {norm} tiles images by fifths of 3 pixels or more; yours are {images.shape[-2:]}."
        )
    return _runs(library, run, range(restarts), classifier, images, labels, eps, norm, seeds, seed)


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
    """The attacks of a version of AutoAttack, as far as the number of classes allows them.

    Below four classes there is no targeted DLR loss, below three none at all: the margin loss stands in. With two
    classes the targeted FAB is the untargeted one. In L1, `standard` takes five restarts and five targets, as its
    authors do (arXiv 2103.01208).
    """
    specs = []
    for part in VERSIONS[known("version", version, VERSIONS)]:
        spec = {**part, **ball}
        if ball.get("norm") == "l1" and version != "plus":
            spec |= {"apgd": {"restarts": 5}, "apgd_t": {"num_targets": 5}}.get(spec["attack"], {})
        if (spec["attack"] == "apgd_t" and num_classes < 4) or (spec.get("loss") == "dlr" and num_classes < 3):
            spec = {"attack": "apgd", "loss": "margin", **ball}
        if spec["attack"] == "fab_t" and num_classes < 3:
            spec = {"attack": "fab", **ball}
        if spec not in specs:
            specs.append(spec)
    return specs


def _library(module: str) -> Any:
    try:
        import pyautoattack  # noqa: F401
    except ImportError:
        raise ImportError(
            "You asked for an attack of AutoAttack, but pyautoattack is not installed. Install it with pip install "
            '"hf_pmgaft[eval]", or use the attack "pgd".'
        ) from None
    from importlib import import_module

    return import_module(f"pyautoattack.{module}")


def _runs(library, run, rounds: Iterable, classifier, images, labels, eps, norm, seeds, seed=0) -> torch.Tensor:
    """Runs over the images that are still classified correctly, until no round or no image is left."""
    radius = parse_radius(eps, norm)
    check_images(images, seeds)
    seeds = torch.arange(len(images), device=images.device) if seeds is None else seeds
    adversarial = images.detach().float().contiguous().clone()
    clean = adversarial.clone()
    with frozen(classifier), torch.no_grad(), torch.random.fork_rng(devices=[]):
        left = correct(classifier(clean), labels).nonzero().squeeze(1)
        for number, round_ in enumerate(rounds):
            if len(left) == 0:
                break
            watch = AnyIterate(classifier, clean[left], labels[left], radius, norm)
            watch.places = left
            noise = _SeededTorch(watch, seeds[left], number, seed)
            try:
                with mock.patch.object(library, "torch", noise):
                    run(watch, watch.images.clone(), watch.labels.clone(), round_)
            except AllFooled:
                pass
            adversarial[left] = watch.adversarial
            left = left[~watch.fooled]
    return round_inside(images.detach(), adversarial)


class _SeededTorch:
    """`torch` as a module of the library sees it: random numbers are functions of the images' seeds.

    A shape of four dimensions has one row per image, or per image that is not fooled yet; smaller ones are drawn for
    all images alike.
    """

    def __init__(self, watch: AnyIterate, seeds: torch.Tensor, number: int, seed: int):
        self._watch, self._seeds, self._stream = watch, seeds, number << 20
        self._shared = torch.Generator().manual_seed((seed << 20) + number)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, shape) -> torch.Tensor:
        if len(shape) < 4:
            return torch.rand(shape, generator=self._shared)
        return self._draw(uniform_noise, shape)

    def randn(self, shape) -> torch.Tensor:
        return self._draw(normal_noise, shape)

    def randn_like(self, x: torch.Tensor) -> torch.Tensor:
        return self._draw(normal_noise, x.shape)

    def _draw(self, noise, shape) -> torch.Tensor:
        self._stream += 1
        return noise(self._seeds[self._watch.rows(shape[0])], shape[1:], self._stream)


def _apgd_run(attack, x: torch.Tensor, y: torch.Tensor) -> None:
    attack.init_hyperparam(x)
    if attack.norm != "L1":
        attack.attack_single_run(x, y)
        return
    if attack.n_iter < 3:
        raise ValueError(f"You passed num_steps={attack.n_iter}, but in L1 APGD walks in three parts. Pass 3 or more.")
    # The schedule of AutoAttack in L1: from three times the radius inwards.
    steps = -(-3 * attack.n_iter // 10)
    radii, iterations = [factor * attack.eps for factor in (3.0, 2.0, 1.0)], [steps, steps, attack.n_iter - 2 * steps]
    attack.decr_eps_pgd(x, y, radii, iterations)


def _margin_apgd(library) -> type:
    class MarginAPGD(library.APGDAttack):
        def dlr_loss(self, logits, labels):
            return margin_loss(logits, labels)

    return MarginAPGD


def _fab(watch, x, eps, norm, num_steps):
    class FAB(_library("fab_pt").FABAttack_PT):
        """The original's gradients, but by `autograd.grad`, which leaves nothing in the parameters' `.grad`."""

        def get_diff_logits_grads_batch(self, images, labels):
            points, logits = self._logits(images)
            rows, classes = torch.arange(len(images), device=images.device), range(logits.shape[1])
            with torch.enable_grad():
                sums = [logits[:, k].sum() for k in classes]
            parts = [torch.autograd.grad(value, points, retain_graph=True)[0] for value in sums]
            gradients, logits = torch.stack(parts, dim=1), logits.detach()
            gap = logits - logits[rows, labels].unsqueeze(1)
            gap[rows, labels] = 1e10
            return gap, gradients - gradients[rows, labels].unsqueeze(1)

        def get_diff_logits_grads_batch_targeted(self, images, labels, targets):
            points, logits = self._logits(images)
            rows = torch.arange(len(images), device=images.device)
            with torch.enable_grad():
                gap = logits[rows, targets] - logits[rows, labels]
                gradient = torch.autograd.grad(gap.sum(), points)[0]
            return gap.detach().unsqueeze(1), gradient.unsqueeze(1)

        def _logits(self, images):
            points = images.clone().requires_grad_()
            with torch.enable_grad():
                return points, self.predict(points)

    return FAB(watch, norm=NORMS[norm], n_iter=num_steps, eps=parse_radius(eps, norm), device=x.device)


@torch.no_grad()
def _ranking(classifier, images: torch.Tensor) -> torch.Tensor:
    """Classes from the most to the least likely, `[B,K]`."""
    with frozen(classifier):
        return classifier(images.contiguous()).sort(dim=1)[1].flip(1)


def _at_least(needed: int, classes: int, attack: str) -> None:
    if classes < needed:
        raise ValueError(
            f"{attack} needs the loss of at least {needed} classes, but there are {classes}. Use "
            '"apgd" with the margin loss, or "autoattack", which does so by itself.'
        )
