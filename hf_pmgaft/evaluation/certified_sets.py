"""`certify_sets`: sets x sigmas -> a report of certificates, with what attacks leave standing beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..attacks.ball import parse_factor
from ..attacks.losses import correct
from ..attacks.spec import AttackSpec
from ..data.evaluation_sets import ZeroShotDataset
from ..defences import Smoothing
from ..defences.certificate import Certificate, largest_radius
from ..distributed import process_share
from ..fingerprints import digest_of_list
from ..models.backbones import get_encoder, unwrap_peft
from ..models.processors import check_image_size
from ..modes import frozen, full_precision, without_tf32
from ..progress import announce
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .bare_models import check_zero_shot, classifier_of, in_float32
from .certificate_report import CertificateReport, CertifiedSet
from .certificates import agreement, noise_embeds
from .certified_attacks import attacks_at, describe_attacks, file_of_sigma, ordered_radii, smoothing_of, standing
from .evaluate import evaluate_robustness
from .judge import Judge, check_finite
from .plan import Plan
from .protocol import conditions, describe_model
from .reader import Reader
from .verdicts import CLEAN, PIXELS, Verdicts

DEFAULT_ATTACKS = ("pgd,num_steps=20,loss=ce,attacker=through",)
DEFAULT_MULTIPLES = (0.5, 1, 1.5, 2)  # radii of the tables beside 0, in units of the smallest sigma
DEFAULT_VERDICT_DRAWS = 100
LABELS = "labels"  # under this name the verdict file has the class of each image


def certify_sets(
    model: nn.Module,
    processor: Any,
    sets: Sequence[ZeroShotDataset],
    *,
    sigma: Sequence[float | str] | float | str = (0.25,),
    draws: int = 1000,
    selection: int = 100,
    alpha: float = 0.001,
    radii: Sequence[float | str] | None = None,
    attacks: Sequence[AttackSpec | Mapping[str, Any] | str] = DEFAULT_ATTACKS,
    eot: int | None = None,
    verdict_draws: int = DEFAULT_VERDICT_DRAWS,
    batch_size: int = 128,
    max_samples: int | None = None,
    seed: int = 0,
    verdict_file: str | os.PathLike | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> CertificateReport:
    """Certifies the images of sets under normal noise, and attacks the same smoothed model at the same radii.

    Each image's noise is encoded once for each sigma. Sets of the same images, with other class names or templates,
    share it and cost next to nothing; their certificates hold one by one, not all together. All draws follow from the
    seed and the image's row, so that the report depends on neither batch size, order nor number of processes.

    Args:
        model (dual encoder or PEFT model): On any device; left as it was.
        processor (`CLIPProcessor`): Its tokenizer makes the prompts, its statistics normalise the images.
        sets (list of `ZeroShotDataset`): Each with its own class names, templates and name.
        sigma (list of `float` or `str`): Standard deviations of a pixel's noise, in the scale of images in [0,1].
        draws (`int`): Draws that bound the probability of a class (the authors: 100,000).
        selection (`int`): Other draws, that pick it.
        alpha (`float`): How probable it may be that an image's certificate does not hold, in (0,1).
        radii (list of `float` or `str`, *optional*): In L2, of the tables and of the attacks; 0, 0.5, 1, 1.5 and 2 of
            the smallest sigma if not given.
        attacks (list of `AttackSpec`, `dict` or `str`): Without radius and norm. Each is run in L2 at each radius
            above 0, by the attacker that it names or else by all three; see [`evaluate_robustness`]. Without any
            there is no upper bound.
        eot (`int`, *optional*): Over how many draws a step of an attack is averaged; 4 if not given.
        verdict_draws (`int`): By how many draws a point that an attack comes to is judged: the most frequent class
            counts, and a tie is wrong.
        batch_size (`int`): Draws that are encoded at once, and images that are attacked at once.
        max_samples (`int`, *optional*): Images per set, chosen by the seed; all if not given.
        seed (`int`): Of all draws and the choice of images.
        verdict_file (`str`, *optional*): What was found is appended to it image by image; the same call goes on from
            there. Attacks at a sigma have a file of their own beside it.
        num_workers (`int`): Processes that read images ahead of the device; 0 reads them in this one.
        progress (`bool`): Whether to show progress bars.

    Raises:
        TypeError: for a model without a text tower.
        ValueError: for draws that are too few for alpha, a sigma, radius, attack or set that cannot serve, before
            anything is computed.
        FloatingPointError: if logits are NaN or infinite.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> food = ZeroShotDataset(dataset, processor, prompt_templates="a photo of the {}", name="food")
        >>> options = {"sigma": 0.05, "draws": 100, "max_samples": 4, "attacks": [], "progress": False}
        >>> report = certify_sets(model, processor, [food], **options)
        >>> report.sets[0].certified_accuracy(0.05) <= report.sets[0].certified_accuracy(0) <= 1
        True
    """
    # Checks, before anything is computed
    sigmas = [sigma] if isinstance(sigma, (float, int, str)) else list(sigma)
    counts = {"draws": draws, "selection": selection, "batch_size": batch_size, "verdict_draws": verdict_draws}
    for name, value in {**counts, "num_workers": num_workers}.items():
        check_count(name, value, least=0 if name == "num_workers" else 1)
    check_zero_shot(model, processor)
    _check_sets(sets, model)
    smallest = _check_sigmas(sigmas, draws, alpha)
    if radii is None:
        radii = [0, *(round(multiple * smallest, 6) for multiple in DEFAULT_MULTIPLES)]
    radii = ordered_radii(radii)
    specs = attacks_at(attacks, radii)
    empirical = describe_attacks(specs, sigmas[0], eot, verdict_draws)
    numbers = _Numbers(selection, draws, alpha, batch_size)
    plans = [Plan.of(data, [], max_samples, seed) for data in sets]

    # In float32, whatever the weights are stored in; texts that cannot be told apart end here
    model = in_float32(model)
    classifiers = {plan.name: classifier_of(model, processor, plan.data) for plan in plans}

    # Protocol and model, which a file must be of
    protocol = {
        "sigma": sigmas,
        "noise": "normal, at the size at which images are attacked, not clipped",
        "draws": draws,
        "selection": selection,
        "alpha": alpha,
        "radii": radii,
        **empirical,
        **conditions(model, plans, seed),
    }
    described = describe_model(model, processor)
    rank, _ = process_share()
    verdicts = Verdicts(verdict_file, {"protocol": protocol, "model": described}, rank)
    verdicts.exchange()  # since all must know what is left to do
    if progress and rank == 0:
        passes = len(sigmas) * (selection + draws)
        announce(f"{passes:,} forward passes an image, once for all sets that hold it; then its attacks.")

    # Certificates
    judge = Judge(
        verdicts,
        any_iterate=False,
        eight_bit=False,
        batch_size=batch_size,
        seed=seed,
        progress=progress and rank == 0,
    )
    with judge.company, closing(verdicts), without_tf32(), full_precision(model), frozen(model), ExitStack() as stack:
        readers = {plan.name: stack.enter_context(Reader(plan.data, num_workers)) for plan in plans}
        for plan in plans:
            _look(judge, classifiers[plan.name], plan, readers[plan.name])
        one_by_one = replace(judge, batch_size=1)  # an image is thousands of passes
        for group in _of_same_images(plans, verdicts):
            for each in sigmas:
                _certify(one_by_one, classifiers, group, readers[group[0].name], each, numbers)
        judge.company.meet()
    verdicts.exchange()
    results = [_result(plan, each, numbers, verdicts) for plan in plans for each in sigmas]

    # The same smoothed models under attack
    for each in sigmas if specs else ():
        report = evaluate_robustness(
            model,
            processor,
            sets,
            specs,
            defence=smoothing_of(each),
            eot=eot,
            draws=verdict_draws,
            batch_size=batch_size,
            max_samples=max_samples,
            seed=seed,
            probes=False,
            verdict_file=file_of_sigma(verdict_file, each),
            num_workers=num_workers,
            progress=progress,
        )
        for result in results:
            if result.sigma == each:
                result.empirical = standing(report, result.name, radii)

    for plan in plans:
        digests = verdicts.of(plan.name, PIXELS)
        protocol["sets"][plan.name]["images"] = digest_of_list([digests[row] for row in plan.rows])
    origins = {data.name: data.source for data in sets if data.source}
    return CertificateReport(protocol, results, described, {"sets": origins} if origins else {})


# ---- Checks ----


def _check_sets(sets: Sequence[ZeroShotDataset], model: nn.Module) -> None:
    if not sets:
        raise ValueError("You passed no sets, so there is nothing to certify. Pass at least one `ZeroShotDataset`.")
    for data in sets:
        if not isinstance(data, ZeroShotDataset):
            raise ValueError(f"{data.name!r} has no class per image, which is what is certified. Leave it out.")
        if not data.native_size:
            check_image_size(data.processor, get_encoder(model).image_size(unwrap_peft(model)))
    names = [data.name for data in sets]
    if len(set(names)) != len(names):
        raise ValueError(f"Two sets share a name: {names}. Give each its own.")


def _check_sigmas(sigmas: Sequence[float | str], draws: int, alpha: float) -> float:
    """The smallest sigma. Raises `ValueError` for none, one that is none or stands twice, and too few draws."""
    if not sigmas:
        raise ValueError("You passed no sigma, so there is no noise to certify under. Pass such as 0.25.")
    values = [Smoothing(None, sigma=each).sigma for each in sigmas]
    if len(set(values)) < len(values):
        raise ValueError(f"You passed a sigma twice: {list(sigmas)}. Name each once.")
    largest_radius(draws, alpha, min(values))  # refuses too few draws
    return min(values)


# ---- What is measured ----


@dataclass(frozen=True)
class _Numbers:
    """How often is drawn, and what is believed of it."""

    selection: int
    draws: int
    alpha: float
    batch_size: int

    @property
    def passes(self) -> dict[str, int]:
        """What [`noise_embeds`] takes."""
        return {"selection": self.selection, "draws": self.draws, "batch_size": self.batch_size}

    def certificate(self, found: Sequence[int], sigma: float | str) -> Certificate:
        """The certificate of a class and of how many draws agree on it."""
        prediction, successes = found
        return Certificate.of_agreement(prediction, successes, self.draws, parse_factor(sigma), self.alpha)


@torch.no_grad()
def _look(judge: Judge, classifier: ZeroShotClassifier, plan: Plan, reader: Reader) -> None:
    """Notes digests and labels of the images of a set, and which of them the bare model has right."""
    judge.check_images(reader, plan.rows)
    looked_at = judge.batches(reader, CLEAN, plan.rows, plan.rows, float, device=classifier.device, with_digests=True)
    for batch in looked_at:
        logits = classifier(batch.images)
        check_finite(logits, plan.name, batch.rows)
        judge.note(reader, PIXELS, batch.rows, batch.digests)
        judge.note(reader, LABELS, batch.rows, batch.labels.tolist())
        judge.note(reader, CLEAN, batch.rows, correct(logits, batch.labels).int().tolist())
    judge.verdicts.exchange(plan.name, PIXELS)


def _of_same_images(plans: Sequence[Plan], verdicts: Verdicts) -> list[list[Plan]]:
    """Sets that hold the same images with the same labels in the same rows, together."""
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        digests = verdicts.of(plan.name, PIXELS)
        content = digest_of_list([[row, digests[row]] for row in plan.rows])
        groups.setdefault(content, []).append(plan)
    return list(groups.values())


def _certify(
    judge: Judge,
    classifiers: Mapping[str, ZeroShotClassifier],
    plans: Sequence[Plan],
    reader: Reader,
    sigma: float | str,
    numbers: _Numbers,
) -> None:
    """Notes of each image the class that draws pick and how many others agree on it, for all sets of the images."""
    first = plans[0]
    key = _key(sigma)
    defences = {plan.name: Smoothing(classifiers[plan.name], sigma=sigma) for plan in plans}
    device = classifiers[first.name].device

    for batch in judge.batches(reader, key, first.rows, first.rows, _is_right, device=device):
        for row, image, label, seed in zip(
            batch.rows, batch.images, batch.labels.tolist(), judge.seeds(batch), strict=True
        ):
            embeds = noise_embeds(defences[first.name], image, seed, **numbers.passes)
            for plan in reversed(plans):  # the first one last, since it says what is done
                found = agreement(defences[plan.name], embeds)
                is_right = numbers.certificate(found, sigma).holds(label, 0)
                judge.verdicts.add(plan.name, key, [row], [[*found, int(is_right)]])


def _result(plan: Plan, sigma: float | str, numbers: _Numbers, verdicts: Verdicts) -> CertifiedSet:
    """What is certified of a set at a sigma."""
    found = verdicts.of(plan.name, _key(sigma))
    certificates = [numbers.certificate(found[row][:2], sigma) for row in plan.rows]
    return CertifiedSet(
        name=plan.name,
        num_classes=len(plan.texts),
        sigma=sigma,
        sample_ids=list(plan.rows),
        labels=[verdicts.of(plan.name, LABELS)[row] for row in plan.rows],
        clean=[verdicts.of(plan.name, CLEAN)[row] for row in plan.rows],
        predictions=[certificate.prediction for certificate in certificates],
        radii=[certificate.radius for certificate in certificates],
    )


def _key(sigma: float | str) -> str:
    """Under which name the verdict file has what is found at a sigma."""
    return f"noise of sigma {sigma}"


def _is_right(noted: Sequence[int]) -> bool:
    return bool(noted[2])
