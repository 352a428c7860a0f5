"""Classification: an image is right if its true class has the largest logit, clean and under attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ..attacks.expected import attack_to_the_end
from ..attacks.losses import correct
from ..attacks.spec import AttackSpec
from ..attacks.typographic import Written
from ..attacks.walk import Ended
from ..defences import Defence
from ..zero_shot.classifier import ZeroShotClassifier
from .judge import Batch, Judge, check_finite
from .outcomes import worst_case
from .plan import Plan, group_of
from .reader import Reader
from .verdicts import CLEAN, FOOLED, PIXELS, STANDS, STANDS_ROUNDED, Judged, Verdicts
from .written import written_key

Classifier = ZeroShotClassifier | Defence
Sources = Mapping[str, ZeroShotClassifier]


def judge_classification(
    judge: Judge, classifier: Classifier, plan: Plan, reader: Reader, sources: Sources | None = None
) -> None:
    """Judges a set, clean and under each attack. Verdicts on file are not computed again.

    Args:
        judge (`Judge`): Reads, attacks and holds the verdicts, of which it knows all afterwards.
        classifier (`ZeroShotClassifier` or `Defence`): Images in [0,1] -> logits. A defence draws nothing; attacks on
            it name their attackers, and what these find is judged by it.
        plan (`Plan`): The set, its rows and attacks.
        sources (`dict[str, ZeroShotClassifier]`, *optional*): By name, on what attacks that name a source make images.
    """
    judge.check_images(reader, plan.rows)

    # Without an attack
    looked_at = judge.batches(
        reader, CLEAN, plan.rows, plan.rows, _stands, device=classifier.device, with_digests=True
    )
    for batch in looked_at:
        judge.note(reader, PIXELS, batch.rows, batch.digests)
        judge.note(reader, CLEAN, batch.rows, _clean_verdicts(classifier, batch, plan.name))
    clean = judge.verdicts.of(plan.name, CLEAN)
    right = {row: STANDS for row in plan.rows if clean[row] == STANDS}

    # An image that is fooled inside a ball is fooled inside every larger one of the norm: later attacks leave it
    # out.
    standing: dict[str, dict[int, int]] = {}
    for spec in plan.attacks:
        group = group_of(spec)
        before = dict.fromkeys(plan.rows, STANDS)
        if judge.any_iterate and spec.attack != "corruption":
            before = standing.get(group, right)

        for ended in _attacked(judge, spec, classifier, plan, reader, list(before), sources or {}):
            verdicts = _attacked_verdicts(judge, spec, classifier, ended)
            joined = [_joined(before[row], now) for row, now in zip(ended.rows, verdicts, strict=True)]
            judge.note(reader, spec.name, ended.rows, joined)

        # An image whose rounded version stands goes on, until 8 bits hold what fools it.
        values = judge.verdicts.of(plan.name, spec.name)
        standing[group] = {row: values[row] for row in before if values[row] != FOOLED}


def judged_classification(
    plan: Plan, verdicts: Verdicts, headline: str, any_iterate: bool, eight_bit: bool
) -> list[Judged]:
    """Sums the verdicts on a set up in one row: the images that are classified correctly, clean and attacked.

    Args:
        plan (`Plan`), verdicts (`Verdicts`): The set and its attacks; all verdicts on it.
        headline (`str`): The threat whose images were rounded to 8 bits, if `eight_bit`.
        any_iterate (`bool`): Whether an image that is wrong without an attack counts as fooled.
    """
    clean = [verdicts.of(plan.name, CLEAN)[row] == STANDS for row in plan.rows]

    # An image without a verdict was fooled before, and not attacked again.
    masks = {}
    for name in plan.names:
        values = verdicts.of(plan.name, name)
        masks[name] = [values.get(row) == STANDS for row in plan.rows]

    rounded = None
    if eight_bit:
        columns = [clean] if any_iterate else []
        for name in plan.leading_to(headline):
            values = verdicts.of(plan.name, name)
            columns.append([values.get(row, STANDS) != FOOLED for row in plan.rows])
        rounded = worst_case(*columns)
    written = {}
    for spec in plan.attacks:
        if spec.attack == "typographic":
            values = verdicts.of(plan.name, written_key(spec.name))
            written[spec.name] = [values[row] for row in plan.rows if row in values]
    return [Judged(plan.name, len(plan.texts), list(plan.rows), clean, masks, rounded, written=written or None)]


@torch.no_grad()
def _clean_verdicts(classifier: Classifier, batch: Batch, name: str) -> list[int]:
    logits = classifier(batch.images)
    check_finite(logits, name, batch.rows)
    return correct(logits, batch.labels).int().tolist()


def _attacked(
    judge: Judge,
    spec: AttackSpec,
    classifier: Classifier,
    plan: Plan,
    reader: Reader,
    candidates: list[int],
    sources: Sources,
) -> Iterator[Ended]:
    """Attacks candidates: by walks in full batches if the attack is made of them and ends at the first wrong answer,
    else batch by batch. Whoever does not know the defence, or the model under test, goes to the end."""
    if spec.source is not None:
        seen = sources[spec.source_name]
    else:
        seen = classifier if spec.attacker is None else classifier.seen_by(spec.attacker)
    device = classifier.device
    to_the_end = spec.source is not None or spec.attacker == "unaware"
    walk = spec.walk(len(plan.texts)) if judge.any_iterate and not to_the_end else None
    if walk is not None:
        yield from judge.walks(
            reader, spec.name, candidates, plan.rows, _stands, spec=spec, walk=walk, classifier=seen, device=device
        )
        return

    class_names = plan.data.class_names
    for batch in judge.batches(reader, spec.name, candidates, plan.rows, _stands, device=device):
        if spec.attack == "typographic":
            yield _written(judge, spec, seen, classifier, plan, reader, batch)
            continue
        if to_the_end:
            run = partial(attack_to_the_end, spec)
            adversarial = judge.attack(spec, seen, batch, run=run, class_names=class_names)
        else:
            adversarial = judge.attack(spec, seen, batch, any_iterate=judge.any_iterate, class_names=class_names)
        with torch.no_grad():
            stands = correct(classifier(adversarial), batch.labels)
        yield Ended(batch.rows, batch.images, batch.labels, adversarial, ~stands)


@torch.no_grad()
def _written(
    judge: Judge,
    spec: AttackSpec,
    seen: Callable[[torch.Tensor], torch.Tensor],
    classifier: Classifier,
    plan: Plan,
    reader: Reader,
    batch: Batch,
) -> Ended:
    """Writes on a batch, and notes which images are taken for the class that is written on them, and the share of
    their pixels that the text covers."""
    found: list[Written] = []

    def run(*given: Any, **options: Any) -> torch.Tensor:
        found.append(spec.write(*given, **options))
        return found[0].images

    points = judge.attack(spec, seen, batch, run=run, class_names=plan.data.class_names)
    (written,) = found
    logits = classifier(points)
    is_read = (logits.argmax(dim=1) == written.classes).int().tolist()
    covered = [round(share, 6) for share in written.covered.tolist()]
    judge.note(reader, written_key(spec.name), batch.rows, [list(pair) for pair in zip(is_read, covered, strict=True)])
    return Ended(batch.rows, batch.images, batch.labels, points, ~correct(logits, batch.labels))


@torch.no_grad()
def _attacked_verdicts(judge: Judge, spec: AttackSpec, classifier: Classifier, ended: Ended) -> list[int]:
    fooled = ended.fooled
    verdicts = torch.where(fooled, FOOLED, STANDS)
    if judge.eight_bit and fooled.any():
        rounded = spec.round_to_8_bits(ended.images[fooled], ended.points[fooled])
        stands_rounded = correct(classifier(rounded), ended.labels[fooled])
        verdicts[fooled] = torch.where(stands_rounded, STANDS_ROUNDED, FOOLED)
    return verdicts.tolist()


def _joined(before: int, now: int) -> int:
    """The verdict after an attack and the ones before it: what only rounding saved stays so until it is fooled."""
    return FOOLED if now == FOOLED else max(before, now)


def _stands(verdict: int) -> bool:
    return verdict == STANDS
