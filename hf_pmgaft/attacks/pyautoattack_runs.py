"""Runs of the attacks of `pyautoattack`: seeded by image, and without the images that are fooled."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..modes import frozen
from ..noise import normal_noise, uniform_noise
from .any_iterate import AllFooled, AnyIterate
from .ball import parse_radius, round_inside
from .inputs import check_classes, check_logits, check_not_nan
from .losses import correct


def library_module(name: str) -> Any:
    """Imports a module of pyautoattack, or says how to install it."""
    try:
        importlib.import_module("pyautoattack")
    except ImportError:
        raise ImportError(
            "You asked for an attack of AutoAttack, but pyautoattack is not installed. Install it with pip install "
            '"hf_pmgaft[eval]", or use the attack "pgd".'
        ) from None
    return importlib.import_module(f"pyautoattack.{name}")


@dataclass(frozen=True)
class Run:
    """One run of an attack of the library over images that still stand, or several of its runs side by side.

    Args:
        watch (`AnyIterate`): The classifier, which keeps the first misclassified points.
        images (`torch.Tensor`), labels (`torch.Tensor`): Copies, with which the library may do as it likes.
        numbers (`torch.Tensor`): `[B]`: in which of the attack's runs each row is.
        ranking (`torch.Tensor`): `[B,K]`: classes from the most to the least likely, of the images.
        noise (`SeededTorch`): What the library draws from.
    """

    watch: AnyIterate
    images: torch.Tensor
    labels: torch.Tensor
    numbers: torch.Tensor
    ranking: torch.Tensor
    noise: SeededTorch

    @contextlib.contextmanager
    def seeded(self, attack: Any) -> Iterator[None]:
        """Lets an object of the library draw its random numbers from this run's noise.

        Its methods draw by `torch.rand` and the like, from the generator of all. The object gets copies of them that
        find this run's noise under the name `torch`. The library's modules stay as they are, so that threads may
        attack at the same time. The copies go afterwards, since they and the object keep each other in memory.
        """
        methods = inspect.getmembers(type(attack), inspect.isfunction)
        methods = [(name, method) for name, method in methods if method.__module__.startswith("pyautoattack.")]
        for name, method in methods:
            names = {**method.__globals__, "torch": self.noise}
            copied = types.FunctionType(method.__code__, names, name, method.__defaults__, method.__closure__)
            setattr(attack, name, types.MethodType(copied, attack))
        try:
            yield
        finally:
            for name, _ in methods:
                delattr(attack, name)


class SeededTorch:
    """`torch` as a method of the library sees it: random numbers are functions of the images' seeds.

    A shape of four dimensions has one row per image, or per image that is not fooled yet; smaller ones are drawn for
    all images alike.
    """

    def __init__(self, watch: AnyIterate, seeds: torch.Tensor, numbers: torch.Tensor, window_seed: int):
        self._watch = watch
        self._seeds = seeds
        self._streams = numbers << 20
        self._shared = torch.Generator().manual_seed((window_seed << 20) + int(numbers[0]))

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

    def _draw(self, noise: Callable[..., torch.Tensor], shape) -> torch.Tensor:
        self._streams = self._streams + 1
        rows = self._watch.rows(shape[0])
        return noise(self._seeds[rows], shape[1:], self._streams[rows])


def run_after_run(
    walk: Callable[[Run], None],
    groups: Iterable[range],
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    eps: float | str,
    norm: str,
    seeds: torch.Tensor,
    window_seed: int = 0,
) -> torch.Tensor:
    """Runs over the images that are still classified correctly, until no run or no image is left.

    Runs of a group go side by side where images have left room for that in the batch. The point that is kept is that
    of the earliest run that fools the image.

    Args:
        walk (`Callable`): Does what a [`Run`] says.
        groups (`Iterable`): The numbers of the runs.
        window_seed (`int`): Of what all images share.
        classifier, images, labels, eps, norm, seeds: As of [`apgd`], checked.
    """
    radius = parse_radius(eps, norm)
    clean = images.detach().float().contiguous().clone()
    adversarial = clean.clone()

    with frozen(classifier), torch.no_grad(), torch.random.fork_rng(devices=[]):
        logits = check_logits(classifier(clean), clean)
        check_classes(labels, logits.shape[1])
        check_not_nan(logits)
        ranking = logits.sort(dim=1)[1].flip(1)
        standing = correct(logits, labels).nonzero().squeeze(1)
        for group in groups:
            while len(group) and len(standing):
                room = len(images) // len(standing)
                numbers, group = group[:room], group[room:]

                # A row for each image of each run, those of the first run first
                rows = standing.repeat(len(numbers))
                tries = torch.arange(len(standing), device=rows.device).repeat(len(numbers))
                number_of_row = torch.tensor(numbers, device=rows.device).repeat_interleave(len(standing))
                watch = AnyIterate(classifier, clean[rows], labels[rows], radius, norm, tries)
                noise = SeededTorch(watch, seeds[rows], number_of_row, window_seed)
                run = Run(watch, watch.images.clone(), watch.labels.clone(), number_of_row, ranking[rows], noise)
                with contextlib.suppress(AllFooled):
                    walk(run)

                fooled = watch.fooled.view(len(numbers), -1)
                earliest = fooled.byte().argmax(dim=0)  # the first of several; 0 where there is none
                points = watch.adversarial.view(len(numbers), len(standing), *clean.shape[1:])
                adversarial[standing] = points[earliest, torch.arange(len(standing), device=rows.device)]
                standing = standing[~fooled.any(dim=0)]

    return round_inside(images.detach(), adversarial)
