"""`train_universal`: makes one perturbation for all images of a set."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..attacks.ball import parse_radius, parse_step_size
from ..attacks.universal import UniversalPerturbation
from ..attacks.universal_steps import UNIVERSAL_LOSSES, UniversalSteps, universal_loss
from ..data.evaluation_sets import ZeroShotDataset
from ..distributed import process_share
from ..fingerprints import digest_of_list, fingerprint
from ..modes import frozen, full_precision, without_tf32
from ..noise import sample_seeds, uniform_noise
from ..progress import progress_bar
from ..registry import check_choice, check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .bare_models import check_zero_shot, classifier_of, in_float32
from .loaded import Loaded
from .plan import Plan
from .protocol import versions
from .reader import Reader
from .trained_on import describe_set

_START = 800  # stream of the noise that it begins at


def train_universal(
    model: nn.Module,
    processor: Any,
    data: ZeroShotDataset,
    *,
    eps: float | str = "10/255",
    loss: str = "ce",
    cap: float = 9.0,
    step_size: float | str = "0.05eps",
    momentum: float = 0.9,
    epochs: int = 10,
    batch_size: int = 64,
    max_samples: int | None = None,
    seed: int = 0,
    surrogates: Sequence[tuple[nn.Module, Any]] = (),
    num_workers: int = 0,
    progress: bool = True,
) -> UniversalPerturbation:
    """Makes one perturbation that raises the mean loss on a set, by sign steps over minibatches; in float32.

    Equation: `max over |d| <= eps of mean over x of min(CE(clip(x + d), y), cap)` (Shafahi et al., AAAI 2020, arXiv
    1811.11304), or with `loss="cosine"` `min of mean cos(f(clip(x + d)), f(x))` (X-Transfer, arXiv 2505.05528, whose
    settings are `eps="12/255", step_size="0.5/255", momentum=0, epochs=1, batch_size=128`). It begins at a random
    point of the ball. See [`UniversalSteps`] for the steps. The seed and their rows say which images make a batch.

    Args:
        model (dual encoder or PEFT model): On any device; left as it was.
        processor (`CLIPProcessor`): Its tokenizer makes the prompts, its statistics normalise the images.
        data (`ZeroShotDataset`): What it is made on, at the size at which images are attacked; none that it will be
            judged on.
        eps (`float` or `str`): Radius in L-inf.
        loss (`str`): `"ce"` or `"cosine"`.
        cap (`float`): What an image's cross-entropy counts at most, above 0.
        step_size (`float` or `str`): Length of a step, also in units of the radius.
        momentum (`float`): What is kept of the direction, from 0 to below 1.
        epochs (`int`), batch_size (`int`): How often each image is seen, and with how many others.
        max_samples (`int`, *optional*): Images, chosen by the seed; all if not given.
        seed (`int`): Of the start and of the batches.
        surrogates (list of pairs of a model and its processor): Further models; the signs of all are averaged.
        num_workers (`int`): Processes that read images ahead of the device; 0 reads them in this one.
        progress (`bool`): Whether to show a progress bar.

    Raises:
        TypeError: for a model without a text tower.
        ValueError: for an option that cannot be, before anything is computed.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, prompt_templates="a photo of the {}", name="food")
        >>> noise = train_universal(model, processor, food, eps="16/255", epochs=4, max_samples=8, progress=False)
        >>> noise.protocol["mean_loss"][-1] > noise.protocol["mean_loss"][0]
        True
        >>> noise.save("noise.safetensors")
    """
    # Checks, before anything is computed
    radius = parse_radius(eps)
    length = parse_step_size(step_size, radius)
    check_choice("loss", loss, UNIVERSAL_LOSSES)
    _check_numbers(radius, length, cap, momentum)
    for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
        check_count(name, value)
    if not isinstance(data, ZeroShotDataset):
        raise ValueError(
            f"{data.name!r} has no class per image, which the mean loss is over. Pass a set of labelled images."
        )
    if process_share()[1] > 1:
        raise ValueError("A universal perturbation is made by one process. Start it without a launcher.")
    for each, its_processor in ((model, processor), *surrogates):
        check_zero_shot(each, its_processor)
    pairs = [(in_float32(each), its_processor) for each, its_processor in ((model, processor), *surrogates)]
    rows = Plan.of(data, [], max_samples, seed).rows
    protocol: dict[str, Any] = {
        "models": [fingerprint(each) for each, _ in pairs],
        "set": describe_set(data),
        "num_images": len(rows),
        "sample_ids": digest_of_list(rows),
        "class_names": digest_of_list(data.class_names),
        "prompt_templates": data.prompt_templates,
        "size": list(data.shape[-2:]),
        "loss": loss,
        "step_size": step_size,
        "momentum": momentum,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "versions": versions(),
        "mean_loss": [],  # of each epoch, before its steps
    }
    if loss == "ce":
        protocol["cap"] = cap

    # The walk
    with contextlib.ExitStack() as stack, Reader(data, num_workers) as reader:
        stack.enter_context(without_tf32())
        for each, _ in pairs:
            stack.enter_context(full_precision(each))
            stack.enter_context(frozen(each))
        classifiers = [classifier_of(each, its_processor, data) for each, its_processor in pairs]

        noise = uniform_noise(torch.tensor([seed]), data.shape, _START)[0].to(classifiers[0].device)
        steps = UniversalSteps((2 * noise - 1) * radius, radius, length, momentum)
        with progress_bar(f"{data.name}: universal perturbation", epochs * len(rows), shown=progress) as bar:
            for epoch in range(epochs):
                total = 0.0
                for batch in reader.stream(_batches(rows, batch_size, seed, epoch)):
                    total += _step(steps, classifiers, batch, loss, cap) * len(batch.rows)
                    bar.update(len(batch.rows))
                protocol["mean_loss"].append(round(total / len(rows), 6))

    return UniversalPerturbation(steps.delta.cpu(), eps, protocol, torch.tensor(rows))


def _check_numbers(radius: float, length: float, cap: float, momentum: float) -> None:
    """Raises `ValueError` for numbers with which no perturbation comes about."""
    if radius == 0 or length == 0:
        raise ValueError("You passed a radius or step size of 0, with which nothing moves. Pass such as 10/255.")
    if not 0 < cap:
        raise ValueError(f"You passed cap={cap}, up to which no image counts. Pass a number above 0.")
    if not 0 <= momentum < 1:
        raise ValueError(f"You passed momentum={momentum}, which is none. Pass a number from 0 to below 1.")


def _batches(rows: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """The rows in an epoch's order, a batch each."""
    places = uniform_noise(sample_seeds(seed, epoch, torch.tensor(rows)), ()).argsort(stable=True)
    order = [rows[place] for place in places.tolist()]
    return [order[start : start + size] for start in range(0, len(order), size)]


def _step(
    steps: UniversalSteps, classifiers: Sequence[ZeroShotClassifier], batch: Loaded, loss: str, cap: float
) -> float:
    """Takes a step on a batch; returns the mean loss before it."""
    batch = batch.to(classifiers[0].device)
    losses = [
        universal_loss(loss, classifier, classifier.embed, batch.images, batch.labels, cap)
        for classifier in classifiers
    ]
    return steps.step(losses, batch.images)
