"""`evaluate_robustness`: zero-shot sets x attacks -> a report whose every number names its attack and protocol."""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from .. import __version__
from ..attacks.ball import parse_radius
from ..attacks.losses import correct
from ..attacks.spec import (
    AUTOATTACK,
    Spec,
    attack_name,
    check_attack,
    expand,
    leading_to,
    norm_of,
    round_to_8_bits,
    run_attack,
    threat_name,
    within_threat,
)
from ..data import EvaluationImages, ZeroShotDataset
from ..data.evaluation_sets import RetrievalDataset
from ..distributed import gather, process_share
from ..engines import check_unwrapped
from ..fingerprints import digest_of_image, digest_of_list, fingerprint
from ..models.backbones import get_backbone, get_encoder, unwrap_peft
from ..models.processors import pixel_statistics
from ..modes import frozen, full_precision
from ..noise import sample_seeds
from ..registry import known
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, check_takes_captions, encode_class_names, encode_prompts
from . import sanity as smells
from .heads import Head
from .report import RobustnessReport, SetResult
from .retrieval import RETRIEVAL_ATTACKS, TARGET_ATTACKS, Gallery, judge_retrieval, judged_retrieval
from .verdicts import CLEAN, FOOLED, PIXELS, STANDS, STANDS_ROUNDED, VERDICTS, Judged, Verdicts, worst_case

DEFAULT_ATTACK = {"attack": "pgd", "eps": "1/255", "norm": "linf", "num_steps": 20, "loss": "margin"}
KEPT_BYTES = 2**30  # of a set's images, so that not every attack decodes them anew


def evaluate_robustness(
    model: nn.Module,
    processor: Any,
    sets: Mapping[str, EvaluationImages] | Sequence[EvaluationImages],
    attacks: Sequence[Mapping[str, Any]] = (DEFAULT_ATTACK,),
    *,
    verdict: str = "any_iterate",
    eight_bit: bool = False,
    probes: bool = True,
    batch_size: int = 64,
    max_samples: int | None = None,
    seed: int = 0,
    verdict_file: str | os.PathLike | None = None,
    progress: bool = True,
    head: Head | None = None,
) -> RobustnessReport:
    """Clean and robust accuracy of zero-shot predictions, or of another head, or recall of retrieval, in float32 and
    eval mode.

    Attacks of one threat (norm and radius) make one worst case per image. The threat of the first attack is the
    headline, `robust_accuracy`; all others are reported beside it. All randomness follows from the seed and the
    image's row, so that verdicts depend on neither batch size, order nor number of processes, which share the images.

    Args:
        model (dual encoder, image encoder or PEFT model): On any device; left as it was.
        processor (`CLIPProcessor`): Its tokenizer makes the prompts, its statistics normalise the images.
        sets (`dict` or list of `ZeroShotDataset`): Each with its own class names and templates. Of a
            [`RetrievalDataset`] with its own captions the report has several rows, a recall each, and every image is
            attacked, as long as the attack goes, whatever was found before: the gallery needs all of them.
        attacks (list of `dict`): Each `{"attack": name, "eps": "4/255", ...}` with the attack's own options; see
            `hf_pmgaft.AttackSpec`.
        verdict (`str`): `"any_iterate"`: no image is attacked that is misclassified clean or was fooled before, which
            is faster and never kinder; or `"last_iterate"`: every attack on every image, as many papers do.
        eight_bit (`bool`): Also judge the adversarial images after rounding them to 8 bits.
        probes (`bool`): Look for masked gradients on a few images of each set; see `hf_pmgaft.evaluation.sanity`.
        batch_size (`int`): Images at once.
        max_samples (`int`, *optional*): Images per set, chosen by the seed; all if not given.
        seed (`int`): Of the attacks' noise and the choice of images.
        verdict_file (`str`, *optional*): Verdicts are appended to it as they come; the same call goes on from there.
        progress (`bool`): Whether to show progress bars.
        head (`Head`, *optional*): Classifies by images that it was given, such as [`NearestClassMean`], instead of by
            class names; it is fitted anew to the model and each set.

    Raises:
        TypeError: if the model is DeepSpeed's engine, or has no text tower and no head is passed.
        ValueError: if an attack, a set or the verdict file cannot serve, before anything is computed; verdicts on
            other images when their set's turn comes.
        RuntimeError: if an attack returns what its threat does not allow.
    """
    check_unwrapped(model)
    (get_backbone if head is None else get_encoder)(model)
    sets = list(sets.values()) if isinstance(sets, Mapping) else list(sets)
    attacks = [check_attack(spec) for spec in attacks]
    _check(sets, attacks, verdict)
    _check_retrieval([data for data in sets if isinstance(data, RetrievalDataset)], model, attacks, head)
    plans = [_plan(data, _rows(data, max_samples, seed), attacks, seed) for data in sets]
    if next(model.parameters()).dtype != torch.float32:
        model = copy.deepcopy(model).float()
    protocol = _protocol(model, plans, attacks, verdict, eight_bit, seed)
    if head is not None:
        protocol["head"] = head.describe([plan.data for plan in plans])
    described = _describe(model, processor)
    rank, _ = process_share()
    verdicts = Verdicts(verdict_file, {"protocol": protocol, "model": described}, rank)
    judge = _Judge(verdicts, verdict == "any_iterate", eight_bit, batch_size, seed, progress and rank == 0)
    probed: list[tuple[str, list[smells.Flag], list[int], list[bool]]] = []
    embeds: dict[str, torch.Tensor] = {}
    try:
        with full_precision(model), frozen(model):
            for plan in plans:
                data, texts = plan.data, plan.texts
                if head is None and texts not in embeds:
                    embeds[texts] = _encode(model, processor, data)
                if head is None:
                    classifier = ZeroShotClassifier.from_model(model, processor, embeds[texts])
                else:
                    classifier = head.fit(model, processor, data)
                judge.evaluate(classifier, plan)
                if probes and rank == 0:
                    probed.append(_probe(classifier, plan, attacks[0], seed))
    finally:
        verdicts.close()
    verdicts.update(gather(verdicts.items()))
    headline, options = threat_name(attacks[0]), (verdict == "any_iterate", eight_bit)
    judged = [
        judged_retrieval(plan, verdicts, headline, *options, embeds[plan.texts])
        if isinstance(plan.data, Gallery)
        else [_judged(plan, verdicts, headline, *options)]
        for plan in plans
    ]
    results = [[_result(row, plan.specs, headline) for row in rows] for plan, rows in zip(plans, judged, strict=True)]
    for plan in plans:
        pixels = verdicts.of(plan.data.name, PIXELS)
        protocol["sets"][plan.data.name]["images"] = digest_of_list([pixels[row] for row in plan.rows])
    return RobustnessReport(protocol, sum(results, []), described, _flags(gather(probed), results, plans))


def sample_ids(size: int, max_samples: int | None, seed: int) -> list[int]:
    """Which rows of a set are evaluated: all, or `max_samples` of them, chosen by the seed."""
    if max_samples is None or max_samples >= size:
        return list(range(size))
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(size, generator=generator)[:max_samples].tolist())


@dataclass
class _Plan:
    """One set, its rows to evaluate, and the attacks on it in order."""

    data: ZeroShotDataset | Gallery
    rows: list[int]
    specs: list[Spec]

    @property
    def names(self) -> list[str]:
        return [attack_name(spec) for spec in self.specs]

    @property
    def texts(self) -> str:
        """What tells texts apart that are encoded once."""
        kind = ["captions"] if isinstance(self.data, Gallery) else []
        return digest_of_list([self.data.class_names, self.data.prompt_templates, *kind])


def _plan(data: EvaluationImages, rows: list[int], attacks: Sequence[Spec], seed: int) -> _Plan:
    if isinstance(data, RetrievalDataset):
        data = Gallery(data, rows, seed)
        rows = data.rows
    return _Plan(data, rows, _order(attacks, len(data.class_names)))


def _encode(model: nn.Module, processor: Any, data: ZeroShotDataset | Gallery) -> torch.Tensor:
    if isinstance(data, Gallery):
        prompts = ClassPrompts.of_captions(model, processor, data.class_names, data.prompt_templates)
        return encode_prompts(model, prompts)
    return encode_class_names(model, processor, data.class_names, data.prompt_templates)


class _Reader:
    """Reads the images of a set, and keeps those that were read while they take no more than `KEPT_BYTES`."""

    def __init__(self, data: ZeroShotDataset | Gallery):
        self.data = data
        self._kept: dict[int, tuple[torch.Tensor, int]] = {}
        self._bytes = 0

    def stack(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `[B,3,H,W]` and labels `[B]`."""
        images, labels = zip(*map(self.read, rows), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def read(self, row: int) -> tuple[torch.Tensor, int]:
        """One image `[3,H,W]` and its label."""
        if row in self._kept:
            return self._kept[row]
        example = self.data[row]
        image, label = example["images"].float(), example["labels"]
        self._bytes += image.nbytes
        if self._bytes <= KEPT_BYTES:
            self._kept[row] = image, label
        return image, label


@dataclass
class _Judge:
    """Gives verdicts, as far as they are not on file, on this process's share of the images."""

    verdicts: Verdicts
    any_iterate: bool
    eight_bit: bool
    batch_size: int
    seed: int
    progress: bool
    _bar: Any = None
    _right: str = ""

    def evaluate(self, classifier: ZeroShotClassifier, plan: _Plan) -> None:
        """All verdicts of one set."""
        rank, count = process_share()
        mine, reader = plan.rows[rank::count], _Reader(plan.data)
        self._check_images(reader, mine)
        if isinstance(plan.data, Gallery):
            judge_retrieval(self, classifier, plan, reader, mine)
            return
        for rows, images, labels in self.batches(reader, CLEAN, mine, mine):
            self.verdicts.add(plan.data.name, PIXELS, rows, self.digests(images, labels))
            with torch.no_grad():
                logits = classifier(images.to(classifier.device))
            self.check_finite(logits, plan.data.name, rows)
            right = correct(logits, labels.to(classifier.device))
            self.verdicts.add(plan.data.name, CLEAN, rows, right.int().tolist())
        clean = self.verdicts.of(plan.data.name, CLEAN)
        # What is fooled inside a ball is fooled inside every larger one of the norm; it leaves if 8 bits hold it too.
        standing: dict[str, dict[int, int]] = {}
        for spec, name in zip(plan.specs, plan.names, strict=True):
            group = norm_of(spec) or threat_name(spec)
            before = dict.fromkeys(mine, STANDS)
            if self.any_iterate and spec["attack"] != "corruption":
                before = standing.get(group, {row: STANDS for row in mine if clean[row]})
            for rows, images, labels in self.batches(reader, name, list(before), mine):
                images, labels = images.to(classifier.device), labels.to(classifier.device)
                found = self._attack(spec, classifier, rows, images, labels)
                worst = [verdict and max(verdict, before[row]) for row, verdict in zip(rows, found, strict=True)]
                self.verdicts.add(plan.data.name, name, rows, worst)
            given = self.verdicts.of(plan.data.name, name)
            standing[group] = {row: given[row] for row in before if given[row] != FOOLED}

    def check_finite(self, logits: torch.Tensor, name: str, rows: Sequence[int]) -> None:
        """Raises `ValueError` if some of the logits of these rows of a set are not finite."""
        if not torch.isfinite(logits).all():
            raise ValueError(
                f"The model's logits are NaN or infinite on images among the rows {rows[0]} to {rows[-1]} of "
                f"{name!r}, so no verdict on them means anything. Check the weights of the checkpoint."
            )

    def digests(self, images: torch.Tensor, labels: torch.Tensor) -> list[str]:
        """What tells images with their labels from others."""
        return [digest_of_image(*pair) for pair in zip(images, labels, strict=True)]

    def _check_images(self, reader: _Reader, rows: Sequence[int]) -> None:
        """Raises `ValueError` if verdicts on file are of other images than the set's."""
        name = reader.data.name
        digests = self.verdicts.of(name, PIXELS)
        known = [row for row in rows if row in digests]
        for row in tqdm(known, f"{name}: images on file", disable=not (known and self.progress), unit="img"):
            if digest_of_image(*reader.read(row)) != digests[row]:
                raise ValueError(
                    f"The verdict file holds verdicts on other images or labels of {name!r}: row {row} differs. Pass "
                    "another file, or remove it."
                )

    def adversarial(self, spec: Spec, classifier, rows: Sequence[int], images, labels, any_iterate: bool):
        """What an attack makes of a batch, or `RuntimeError` if that is not what its threat allows."""
        seeds = sample_seeds(self.seed, 0, torch.tensor(rows, device=images.device))
        adversarial = run_attack(spec, self._watched(classifier), images, labels, seeds, any_iterate)
        outside = ~within_threat(spec, images, adversarial)
        if outside.any():
            broken = [row for row, out in zip(rows, outside.tolist(), strict=True) if out]
            raise RuntimeError(f"{attack_name(spec)} left its ball or [0,1] on the images of rows {broken}.")
        return adversarial

    def _attack(self, spec: Spec, classifier, rows: Sequence[int], images, labels) -> list[int]:
        adversarial = self.adversarial(spec, classifier, rows, images, labels, self.any_iterate)
        with torch.no_grad():
            stands = correct(classifier(adversarial), labels)
            given = torch.where(stands, STANDS, FOOLED)
            if self.eight_bit:
                rounded = correct(classifier(round_to_8_bits(spec, images, adversarial)), labels)
                given[~stands & rounded] = STANDS_ROUNDED
        return given.tolist()

    def batches(
        self,
        reader: _Reader,
        name: str,
        candidates: Sequence[int],
        share: Sequence[int],
        right: Callable[[Any], bool] = STANDS.__eq__,
    ) -> Iterator[tuple]:
        """Rows, images and labels of the candidates that have no verdict yet; shows how the whole share fares."""
        given = self.verdicts.of(reader.data.name, name)
        todo = [row for row in candidates if row not in given]
        bar = tqdm(total=len(candidates), initial=len(candidates) - len(todo), unit="img", disable=not self.progress)
        bar.set_description(f"{reader.data.name}: {name}")
        standing, self._bar = len(todo) + sum(row in given and right(given[row]) for row in candidates), bar
        with bar:
            for start in range(0, len(todo), self.batch_size):
                self._right = f"at most {standing / len(share):.1%} right"
                rows = todo[start : start + self.batch_size]
                yield rows, *reader.stack(rows)
                standing -= sum(not right(given[row]) for row in rows)
                bar.update(len(rows))
                bar.set_postfix_str(f"at most {standing / len(share):.1%} right")

    def _watched(self, classifier):
        """The classifier, showing now and then that a long attack is at work on the batch."""
        passes, shown = 0, time.monotonic()

        def watched(images):
            nonlocal passes, shown
            passes += 1
            if time.monotonic() - shown > 2:
                shown = time.monotonic()
                self._bar.set_postfix_str(f"{self._right}, pass {passes} over a batch, {len(images)} images in it")
            return classifier(images)

        return watched


def _judged(plan: _Plan, verdicts: Verdicts, headline: str, any_iterate: bool, eight_bit: bool) -> Judged:
    """Who is classified correctly, from all verdicts on a set."""
    name, rows = plan.data.name, plan.rows
    clean = [verdicts.of(name, CLEAN)[row] == STANDS for row in rows]
    # Who was not attacked because he was fooled before is fooled.
    masks = {attack: [verdicts.of(name, attack).get(row) == STANDS for row in rows] for attack in plan.names}
    rounded = None
    if eight_bit:
        given = [verdicts.of(name, attack) for attack in leading_to(plan.specs, headline)]
        stands = [all(values.get(row, STANDS) != FOOLED for values in given) for row in rows]
        rounded = worst_case(*([clean] if any_iterate else []), stands)
    return Judged(name, len(plan.data.class_names), list(rows), clean, masks, rounded)


def _result(judged: Judged, specs: Sequence[Spec], headline: str) -> SetResult:
    """The figures of those who were judged."""
    clean, masks, count = judged.clean, judged.masks, len(judged.ids)
    by_threat: dict[str, list[list[bool]]] = {}
    for spec in specs:
        by_threat.setdefault(threat_name(spec), []).append(masks[attack_name(spec)])
    worst = {threat: worst_case(*columns) for threat, columns in by_threat.items()}
    robust = worst[headline]
    return SetResult(
        name=judged.name,
        num_classes=judged.num_classes,
        num_samples=count,
        clean_accuracy=sum(clean) / count,
        robust_accuracy=sum(robust) / count,
        attacks={attack: sum(mask) / count for attack, mask in masks.items()},
        threats={threat: sum(mask) / count for threat, mask in worst.items()},
        robust_8bit_accuracy=None if judged.rounded is None else sum(judged.rounded) / count,
        verdicts={
            "sample_id": judged.ids,
            **{key: [*map(int, mask)] for key, mask in {CLEAN: clean, "robust": robust, **masks}.items()},
        },
        figure=judged.figure,
    )


def _probe(classifier, plan: _Plan, headline: Spec, seed: int):
    rows = plan.rows[: smells.PROBE_SIZE]
    images, labels = (tensor.to(classifier.device) for tensor in _Reader(plan.data).stack(rows))
    seeds = sample_seeds(seed, 0, torch.tensor(rows, device=classifier.device))
    found, fooled = smells.probe(classifier, images, labels, seeds, headline, plan.data.name)
    return plan.data.name, found, rows, fooled.tolist()


def _flags(probed, results: Sequence[Sequence[SetResult]], plans: Sequence[_Plan]) -> list[smells.Flag]:
    # The first result of a set is on its images, and on the first place.
    by_name = {plan.data.name: parts[0] for plan, parts in zip(plans, results, strict=True)}
    found = []
    for name, flags, rows, fooled in probed:
        verdicts = by_name[name].verdicts
        robust = dict(zip(verdicts["sample_id"], verdicts["robust"], strict=True))
        found += flags + smells.noise_flag(fooled, [robust[row] for row in rows], name)
    for plan, parts in zip(plans, results, strict=True):
        found += [flag for result in parts for flag in smells.verdict_flags(result, plan.specs)]
    return found


def _check(sets: Sequence[EvaluationImages], attacks: Sequence[Spec], verdict: str) -> None:
    if not sets:
        raise ValueError("You passed no evaluation sets. Pass at least one `ZeroShotDataset`.")
    if not attacks:
        raise ValueError("You passed no attacks, without which there is no robustness to measure. Pass at least one.")
    known("verdict", verdict, VERDICTS)
    if len({data.name for data in sets}) != len(sets):
        raise ValueError(f"Two evaluation sets share a name: {[data.name for data in sets]}. Give each its own.")


def _check_retrieval(
    sets: Sequence[RetrievalDataset], model: nn.Module, attacks: Sequence[Spec], head: Head | None
) -> None:
    for data in sets:
        check_takes_captions(model)
        if head is not None:
            raise ValueError(f"You passed a head with {data.name!r}, whose captions take its place. Leave it out.")
        choice = RETRIEVAL_ATTACKS if data.target is None else TARGET_ATTACKS
        wrong = [attack_name(spec) for spec in attacks if spec["attack"] not in choice or spec.get("loss") == "dlr"]
        if wrong:
            raise ValueError(
                f"You passed {', '.join(wrong)} for the captions of {data.name!r}. An attack there has several right "
                f"answers, and goes on beyond the first wrong one{'' if data.target is None else ', to a target'}. "
                f"Pass one of {', '.join(choice)}, with the loss ce or margin."
            )


def _order(attacks: Sequence[Spec], num_classes: int) -> list[Spec]:
    """The attacks on a set of so many classes, each once; smaller radii of a norm first, else as they were passed."""
    specs = {attack_name(part): part for spec in attacks for part in expand(spec, num_classes)}
    norms = [norm_of(spec) for spec in specs.values()]

    def place(spec: Spec) -> tuple[int, float]:
        norm = norm_of(spec)
        return norms.index(norm), parse_radius(spec["eps"], norm) if norm else 0.0

    return sorted(specs.values(), key=place)


def _rows(data: EvaluationImages, max_samples: int | None, seed: int) -> list[int]:
    rows = list(range(len(data))) if data.sample_ids is None else list(data.sample_ids)
    return [rows[i] for i in sample_ids(len(rows), max_samples, seed)]


def _protocol(model, plans, attacks, verdict, eight_bit, seed) -> dict[str, Any]:
    size = get_encoder(model).image_size(unwrap_peft(model))
    packages = ["torch", "transformers", "datasets", "pillow", "torchvision"]
    if any(spec["attack"] in AUTOATTACK for plan in plans for spec in plan.specs):
        packages.append("pyautoattack")
    device = next(model.parameters()).device
    return {
        "attacks": attacks,
        "headline": threat_name(attacks[0]),
        "verdict": VERDICTS[verdict],
        "eight_bit": eight_bit,
        "sets": {
            plan.data.name: {
                "num_samples": len(plan.rows),
                "sample_ids": digest_of_list(plan.rows),
                "class_names": digest_of_list(plan.data.class_names),
                "num_classes": len(plan.data.class_names),
                "prompt_templates": plan.data.prompt_templates,
                "attacked_at": list(plan.data.shape[-2:]) if plan.data.native_size else size,
                **({} if plan.data.resize is None else {"resize": plan.data.resize}),
                **({"border": plan.data.border} if plan.data.border else {}),
                **({"retrieval": plan.data.describe()} if isinstance(plan.data, Gallery) else {}),
                "attacks": plan.names,
            }
            for plan in plans
        },
        "seed": seed,
        "dtype": "float32",
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "versions": {
            "hf_pmgaft": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
    }


def _describe(model: nn.Module, processor: Any) -> dict[str, Any]:
    """The model: a fingerprint of its weights, its logit scale and its processor's statistics."""
    mean, std = pixel_statistics(processor)
    backbone, plain = get_encoder(model), unwrap_peft(model)
    bias = backbone.logit_bias(plain).item()
    return {
        "fingerprint": fingerprint(model),
        "logit_scale": round(backbone.logit_scale(plain).item(), 4),
        **({"logit_bias": round(bias, 4)} if bias else {}),
        "image_mean": mean,
        "image_std": std,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
