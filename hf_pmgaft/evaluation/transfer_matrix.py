"""`transfer_matrix`: images are made on each of several models, once, and judged by all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import torch
from torch import nn

from ..attacks.expected import attack_to_the_end
from ..attacks.losses import correct
from ..attacks.options import takes_attacker
from ..attacks.spec import AttackSpec
from ..data.evaluation_sets import ZeroShotDataset
from ..distributed import process_share
from ..fingerprints import digest_of_list
from ..models.backbones import get_encoder, unwrap_peft
from ..models.processors import check_image_size
from ..modes import frozen, full_precision, without_tf32
from ..progress import announce
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from .bare_models import check_zero_shot, classifier_of, in_float32
from .judge import Batch, Judge, check_finite
from .plan import Plan
from .protocol import conditions, describe_attack, describe_model
from .reader import Reader
from .transfer_report import TransferReport, TransferSet
from .verdicts import CLEAN, PIXELS, Verdicts

DEFAULT_ATTACKS = ("pgd,eps=4/255,num_steps=20,loss=ce",)
Pair = tuple[nn.Module, Any]
Classifiers = Mapping[str, ZeroShotClassifier]


def transfer_matrix(
    models: Mapping[str, Pair],
    sets: Sequence[ZeroShotDataset],
    attacks: Sequence[AttackSpec | Mapping[str, Any] | str] = DEFAULT_ATTACKS,
    *,
    batch_size: int = 64,
    max_samples: int | None = None,
    seed: int = 0,
    verdict_file: str | os.PathLike | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> TransferReport:
    """How images that are made on each model fare on each (Papernot et al., 2016, arXiv 1605.07277), in float32.

    Images are made on one model alone, its source, by its own class texts, statistics and resolution, to the end of
    the attack, and are judged there by every model. So the diagonal is the white-box attack to its end: no less than
    what [`evaluate_robustness`] finds, which judges every point on the way. An image that a model has wrong without an
    attack is wrong. Of several attacks of one threat the worst counts, image by image.

    Every image is attacked once on each source, unless all models have it wrong. It is the points of
    `evaluate_robustness(..., ["pgd,...,source=MODEL"])`, and its figures.

    Args:
        models (`dict`): By the name in tables, two models or more with their processors, all on one device.
        sets (list of `ZeroShotDataset`): At their own size, or at that of the first model, by its processor. Models of
            another resolution resize them in the graph.
        attacks (list of `AttackSpec`, `dict` or `str`): Those that look at a classifier, without a source.
        batch_size (`int`): Images at once.
        max_samples (`int`, *optional*): Images per set, chosen by the seed; all if not given.
        seed (`int`): Of the attacks' noise and the choice of images.
        verdict_file (`str`, *optional*): Verdicts are appended to it as they come; the same call goes on from there.
        num_workers (`int`): Processes that read images ahead of the device; 0 reads them in this one.
        progress (`bool`): Whether to show progress bars.

    Raises:
        TypeError: for a model without a text tower.
        ValueError: for fewer than two models, and sets and attacks that cannot serve, before anything is computed.

    Example:
        >>> import copy
        >>> from hf_pmgaft import ZeroShotDataset
        >>> food = ZeroShotDataset(dataset, processor, prompt_templates="a photo of the {}", name="food")
        >>> models = {"one": (model, processor), "copy": (copy.deepcopy(model), processor)}
        >>> report = transfer_matrix(models, [food], ["fgsm,eps=8/255"], progress=False)
        >>> report.accuracy("one", "one") == report.accuracy("one", "copy")
        True
    """
    # Checks, before anything is computed
    _check_models(models)
    specs = _checked_attacks(attacks)
    _check_sets(sets, next(iter(models.values()))[0])
    check_count("batch_size", batch_size)
    check_count("num_workers", num_workers, least=0)
    plans = [Plan.of(data, specs, max_samples, seed) for data in sets]

    # In float32, whatever weights are stored in; texts that cannot be told apart end here
    models = {name: (in_float32(model), processor) for name, (model, processor) in models.items()}
    classifiers = {plan.name: _classifiers(models, plan.data) for plan in plans}

    # Protocol, which a file must be of
    first, _ = next(iter(models.values()))
    described = {name: _describe(*pair) for name, pair in models.items()}
    protocol = {
        "attacks": [describe_attack(spec) for spec in specs],
        "verdict": "the end of each attack on its source",
        **conditions(first, plans, seed),
    }
    rank, _ = process_share()
    verdicts = Verdicts(verdict_file, {"protocol": protocol, "models": described}, rank)
    verdicts.exchange()  # since all must know what is left to do
    shown = progress and rank == 0
    if shown:
        images = sum(len(plan.rows) for plan in plans)
        announce(f"{images:,} images, attacked once on each of {len(models)} models and judged by all of them.")

    # Verdicts of this process, and then of all
    judge = Judge(verdicts, any_iterate=False, eight_bit=False, batch_size=batch_size, seed=seed, progress=shown)
    with judge.company, closing(verdicts), without_tf32(), ExitStack() as stack:
        for model, _ in models.values():
            stack.enter_context(full_precision(model))
            stack.enter_context(frozen(model))
        for plan in plans:
            with Reader(plan.data, num_workers) as reader:
                _judge(judge, classifiers[plan.name], plan, reader)
        judge.company.meet()
    verdicts.exchange()

    for plan in plans:
        digests = verdicts.of(plan.name, PIXELS)
        protocol["sets"][plan.name]["images"] = digest_of_list([digests[row] for row in plan.rows])
    origins = {data.name: data.source for data in sets if data.source}
    results = [_result(plan, list(models), verdicts) for plan in plans]
    return TransferReport(protocol, results, described, {"sets": origins} if origins else {})


# ---- Checks ----


def _check_models(models: Mapping[str, Pair]) -> None:
    if len(models) < 2:
        raise ValueError(f"You passed the models {list(models)}, between which nothing transfers. Pass two or more.")
    for name, (model, processor) in models.items():
        try:
            check_zero_shot(model, processor)
        except (TypeError, ValueError) as error:
            raise type(error)(f"The model {name!r}: {error}") from error
    places = {name: next(model.parameters()).device for name, (model, _) in models.items()}
    if len(set(places.values())) > 1:
        raise ValueError(f"The models are on different devices: {places}. Move them to one.")


def _checked_attacks(attacks: Sequence[AttackSpec | Mapping[str, Any] | str]) -> list[AttackSpec]:
    specs = [AttackSpec.of(attack) for attack in attacks]
    if not specs:
        raise ValueError("You passed no attacks, so nothing can transfer. Pass at least one.")
    for spec in specs:
        if not takes_attacker(spec.attack):
            raise ValueError(
                f"You passed {spec.name}, which looks at no model, so that none is its source. Leave it out."
            )
        if {"source", "attacker", "eot"} & set(spec.options):
            raise ValueError(
                f"You passed {spec.name}. Here each model is a source in turn, and none is defended. Leave source, "
                "attacker and eot out."
            )
    return specs


def _check_sets(sets: Sequence[ZeroShotDataset], first: nn.Module) -> None:
    """Images come at their own size or at the first model's; others resize them."""
    if not sets:
        raise ValueError("You passed no sets. Pass at least one `ZeroShotDataset`.")
    for data in sets:
        if not isinstance(data, ZeroShotDataset):
            raise ValueError(f"{data.name!r} has no class per image, by which models are compared. Leave it out.")
        if not data.native_size:
            check_image_size(data.processor, get_encoder(first).image_size(unwrap_peft(first)))
    names = [data.name for data in sets]
    if len(set(names)) != len(names):
        raise ValueError(f"Two sets share a name: {names}. Give each its own.")


# ---- What is measured ----


def _classifiers(models: Mapping[str, Pair], data: ZeroShotDataset) -> dict[str, ZeroShotClassifier]:
    return {name: classifier_of(model, processor, data) for name, (model, processor) in models.items()}


def _describe(model: nn.Module, processor: Any) -> dict[str, Any]:
    return {**describe_model(model, processor), "image_size": get_encoder(model).image_size(unwrap_peft(model))}


def _judge(judge: Judge, classifiers: Classifiers, plan: Plan, reader: Reader) -> None:
    """Notes for each image, clean and under each attack on each source, by which models it is right."""
    device = next(iter(classifiers.values())).device
    judge.check_images(reader, plan.rows)
    for batch in judge.batches(reader, CLEAN, plan.rows, plan.rows, _share, device=device, with_digests=True):
        judge.note(reader, PIXELS, batch.rows, batch.digests)
        judge.note(reader, CLEAN, batch.rows, _right(classifiers, batch, batch.images, plan.name))
    clean = judge.verdicts.of(plan.name, CLEAN)
    candidates = [row for row in plan.rows if any(clean[row])]

    for name, seen in classifiers.items():
        for spec in plan.attacks:
            run = partial(attack_to_the_end, spec)
            key = key_of(spec, name)
            for batch in judge.batches(reader, key, candidates, plan.rows, _share, device=device):
                points = judge.attack(spec, seen, batch, run=run, class_names=plan.data.class_names)
                judge.note(reader, key, batch.rows, _right(classifiers, batch, points, plan.name))


@torch.no_grad()
def _right(classifiers: Classifiers, batch: Batch, points: torch.Tensor, name: str) -> list[list[int]]:
    """Which models are right at a point of each image, 1 or 0 in their order."""
    columns = []
    for classifier in classifiers.values():
        logits = classifier(points)
        check_finite(logits, name, batch.rows)
        columns.append(correct(logits, batch.labels).int())
    return torch.stack(columns, dim=1).tolist()


def _share(right: Sequence[int]) -> float:
    return sum(right) / len(right)


def key_of(spec: AttackSpec, source: str) -> str:
    """Under which name the verdict file has an attack on a source.

    Example:
        >>> key_of(AttackSpec.parse("fgsm,eps=4/255"), "robust")
        'FGSM ce linf 4/255 from robust'
    """
    return f"{spec.name} from {source}"


def _result(plan: Plan, names: Sequence[str], verdicts: Verdicts) -> TransferSet:
    """Who is right on which image, clean and by threat and source the worst of its attacks."""
    clean = verdicts.of(plan.name, CLEAN)
    right: dict[str, dict[str, dict[str, list[int]]]] = {}
    for spec in plan.attacks:
        for source in names:
            values = verdicts.of(plan.name, key_of(spec, source))
            cells = right.setdefault(spec.threat, {}).setdefault(source, {})
            for place, target in enumerate(names):
                before = cells.get(target, [clean[row][place] for row in plan.rows])
                now = [values[row][place] if row in values else 0 for row in plan.rows]
                cells[target] = [int(one and other) for one, other in zip(before, now, strict=True)]
    return TransferSet(
        plan.name,
        num_classes=len(plan.texts),
        sample_ids=list(plan.rows),
        clean={name: [clean[row][place] for row in plan.rows] for place, name in enumerate(names)},
        right=right,
    )
