"""Retrieval: images with captions, each found by the other, clean and under attack; recall at 1, 5 and 10."""

from __future__ import annotations

import functools
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..attacks.expected import attack_expected, attack_to_the_end
from ..attacks.spec import AttackSpec
from ..data.evaluation_sets import RetrievalDataset
from ..defences import Defence
from ..modes import at_least_float32
from ..noise import draw_seeds
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import check_takes_captions
from .figure import Figure
from .gallery import RECALL_AT
from .heads import Head
from .judge import Batch, Judge, check_finite
from .plan import Plan, group_of
from .ranks import Goal, majority_rank, text_to_image_ranks
from .reader import Reader
from .verdicts import CLEAN, PIXELS, Judged, Verdicts

# Others leave an image at its first wrong answer, too early for recall at 10 and for the gallery.
RETRIEVAL_ATTACKS = ("corruption", "fgsm", "pgd")
TARGET_ATTACKS = ("fgsm", "pgd")
# Ends of the keys in the verdict file: embeddings of an attack's images, and those images rounded to 8 bits.
_EMBEDS = " embeds"
_ROUNDED = " 8 bit"


# ---- Checks ----


def check_retrieval(
    data: RetrievalDataset, model: nn.Module, attacks: Sequence[AttackSpec], head: Head | None
) -> None:
    """Raises `ValueError` for a model without a place for captions, a head, or attacks that end too early."""
    check_takes_captions(model)
    if head is not None:
        raise ValueError(f"You passed a head with {data.name!r}, whose captions take its place. Leave it out.")

    choice = RETRIEVAL_ATTACKS if data.target is None else TARGET_ATTACKS
    refused = [spec.name for spec in attacks if spec.attack not in choice or spec.options.get("loss") == "dlr"]
    if refused:
        raise ValueError(
            f"You passed {', '.join(refused)} for the captions of {data.name!r}. An attack there has several right "
            f"answers, and goes on beyond the first wrong one{'' if data.target is None else ', to a target'}. "
            f"Pass one of {', '.join(choice)}, with the loss ce or margin."
        )


# ---- Verdicts ----


def judge_retrieval(
    judge: Judge, classifier: ZeroShotClassifier | Defence, plan: Plan, reader: Reader, draws: int | None = None
) -> None:
    """Notes ranks and embeddings of the images, clean and under each attack.

    Embeddings, unit norm, are kept with the ranks, so that text-to-image recall follows without a second attack.

    Args:
        judge (`Judge`), plan (`Plan`), reader (`Reader`): As of the evaluation.
        classifier (`ZeroShotClassifier` or `Defence`): Of captions in place of classes; attacks on a defence name
            their attackers.
        draws (`int`, *optional*): Of a random defence, how many give a rank; see [`majority_rank`].
    """
    goal = Goal.of(plan.gallery)
    device = classifier.device
    notes = _Notes(judge, classifier, goal, reader, draws)
    judge.check_images(reader, plan.rows)

    looked_at = judge.batches(reader, CLEAN, plan.rows, plan.rows, goal.is_first, device=device, with_digests=True)
    for batch in looked_at:
        judge.note(reader, PIXELS, batch.rows, batch.digests)
        notes.add(CLEAN, batch, batch.images)

    for spec in plan.attacks:
        for batch in judge.batches(reader, spec.name, plan.rows, plan.rows, goal.is_first, device=device):
            adversarial, worst = _attacked(judge, spec, classifier, batch, goal, plan.texts)
            if judge.eight_bit:
                notes.add(spec.name + _ROUNDED, batch, spec.round_to_8_bits(batch.images, adversarial))
            notes.add(spec.name, batch, adversarial, worst)


def _attacked(
    judge: Judge,
    spec: AttackSpec,
    classifier: ZeroShotClassifier | Defence,
    batch: Batch,
    goal: Goal,
    captions: Sequence[str],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Adversarial images of a batch, and their worst ranks on the way where these count.

    The gallery needs every image attacked to the end, so no walk ends where it fools one.
    """
    seen = classifier if spec.attacker is None else classifier.seen_by(spec.attacker)
    if spec.attacker == "unaware":  # whose points on the way say nothing of the defence
        return judge.attack(spec, seen, batch, run=partial(attack_to_the_end, spec), class_names=captions), None
    if spec.attacker is not None and classifier.is_random:
        return judge.attack(spec, seen, batch, run=partial(attack_expected, spec), class_names=captions), None

    watched = _WorstRank(seen, spec, batch, goal)
    adversarial = judge.attack(spec, watched, batch, targeted=goal.is_pull)
    return adversarial, watched.worst if judge.any_iterate else None


@dataclass(frozen=True)
class _Notes:
    """Notes what a classifier makes of images: their ranks, and their embeddings if captions are queries too."""

    judge: Judge
    classifier: ZeroShotClassifier | Defence
    goal: Goal
    reader: Reader
    draws: int | None

    @torch.no_grad()
    def add(self, key: str, batch: Batch, images: torch.Tensor, worst: torch.Tensor | None = None) -> None:
        """Notes images of a batch under a key, with the worse of their rank and `worst`, `[B]`."""
        by_draw = self._embeds(batch, images)
        ranks = majority_rank(torch.stack([self._ranks(embeds, batch) for embeds in by_draw]))
        if worst is not None:
            ranks = self.goal.worse(ranks, worst)

        # Embeddings before ranks: a row that has a rank is done.
        if not self.goal.is_pull:
            packed = [_pack(F.normalize(at_least_float32(embeds), dim=-1)) for embeds in by_draw]
            values = packed[0] if self.draws is None else [list(of_image) for of_image in zip(*packed, strict=True)]
            self.judge.note(self.reader, key + _EMBEDS, batch.rows, values)
        self.judge.note(self.reader, key, batch.rows, ranks.tolist())

    def _embeds(self, batch: Batch, images: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings `[B,D]` by each draw of a random defence that no attack saw, or the only ones."""
        if self.draws is None:
            return [self.classifier.embed(images)]
        seeds = self.judge.seeds(batch)
        return [self.classifier.embed(images, draw_seeds(seeds, "verdict", index)) for index in range(self.draws)]

    def _ranks(self, embeds: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits = self.classifier.logits(embeds)
        check_finite(logits, self.reader.name, batch.rows)
        return self.goal.ranks(logits, batch.labels)


class _WorstRank:
    """A classifier that keeps the worst rank of each image over the points inside its threat that pass by."""

    def __init__(self, classifier: Callable[[torch.Tensor], torch.Tensor], spec: AttackSpec, batch: Batch, goal: Goal):
        self.classifier = classifier
        self.spec = spec
        self.batch = batch
        self.goal = goal
        self.worst = torch.full((len(batch.images),), goal.best, device=batch.images.device)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(points)
        with torch.no_grad():
            is_allowed = self.spec.allows(self.batch.images, points)
            worse = self.goal.worse(self.goal.ranks(logits, self.batch.labels), self.worst)
            self.worst = torch.where(is_allowed, worse, self.worst)
        return logits


# ---- Recalls ----


def judged_retrieval(
    plan: Plan, verdicts: Verdicts, headline: str, any_iterate: bool, eight_bit: bool, texts: torch.Tensor
) -> list[Judged]:
    """Recalls at each k, image-to-text and text-to-image, or how many keep the target out, from all that was noted.

    Args:
        plan (`Plan`), verdicts (`Verdicts`): The set, its gallery and attacks; what was noted of it.
        headline (`str`): The threat whose images were rounded to 8 bits, if `eight_bit`.
        texts (`torch.Tensor`): Embeddings of the captions, `[M,D]`.
    """
    gallery = plan.gallery
    leading = [name + _ROUNDED for name in plan.leading_to(headline)] if eight_bit else []
    keys = [CLEAN, *plan.names, *leading]

    def noted(key: str) -> list[Any]:
        values = verdicts.of(plan.name, key)
        return [values[row] for row in plan.rows]

    # Images as queries: ranks as they were noted
    ranks = _worst(plan, {key: torch.tensor(noted(key)) for key in keys}, leading, any_iterate)
    if gallery.targets:
        figures = [Figure.target_kept_out(k) for k in RECALL_AT]
        return _judged(plan, figures, ranks, plan.rows, gallery.num_candidates)
    figures = [Figure.recall("I2T", k) for k in RECALL_AT]
    rows = _judged(plan, figures, ranks, plan.rows, gallery.num_candidates)

    # Captions as queries: ranks among the embeddings of the attacked images
    own = gallery.images_of_captions()
    by_text = {}
    for key in keys:
        values = noted(key + _EMBEDS)
        by_draw = [values] if isinstance(values[0], str) else zip(*values, strict=True)
        images = [_unpack(packed).to(texts.device) for packed in by_draw]
        by_text[key] = majority_rank(torch.stack([text_to_image_ranks(texts, drawn, own) for drawn in images]))
    ranks = _worst(plan, by_text, leading, any_iterate)
    figures = [Figure.recall("T2I", k) for k in RECALL_AT]
    return rows + _judged(plan, figures, ranks, list(range(len(texts))), len(plan.rows))


@dataclass(frozen=True)
class _Ranks:
    """Ranks of all queries, `[Q]`.

    Args:
        clean (`torch.Tensor`): Without an attack.
        attacked (`dict[str, torch.Tensor]`): By attack, after it and the ones before it.
        rounded (`torch.Tensor`, *optional*): Under the headline threat with images rounded to 8 bits.
    """

    clean: torch.Tensor
    attacked: dict[str, torch.Tensor]
    rounded: torch.Tensor | None


def _worst(plan: Plan, ranks: Mapping[str, torch.Tensor], leading: Sequence[str], any_iterate: bool) -> _Ranks:
    """The worst ranks of the queries, from those of each attack alone."""
    worse = Goal.of(plan.gallery).worse
    clean = ranks[CLEAN]

    # Under any iterate, attacks of one group go on from each other, and from the clean image.
    attacked = {}
    met: dict[str, torch.Tensor] = {}
    for spec in plan.attacks:
        attacked[spec.name] = ranks[spec.name]
        if any_iterate and spec.attack != "corruption":
            group = group_of(spec)
            met[group] = worse(ranks[spec.name], met.get(group, clean))
            attacked[spec.name] = met[group]

    if not leading:
        return _Ranks(clean, attacked, rounded=None)
    columns = [clean] if any_iterate else []
    columns += [ranks[key] for key in leading]
    return _Ranks(clean, attacked, rounded=functools.reduce(worse, columns))


def _judged(plan: Plan, figures: Sequence[Figure], ranks: _Ranks, ids: list[int], num_candidates: int) -> list[Judged]:
    """A row for each figure: who is right at its k."""
    goal = Goal.of(plan.gallery)
    rows = []
    for figure in figures:
        rounded = None if ranks.rounded is None else goal.is_right(ranks.rounded, figure.k).tolist()
        rows.append(
            Judged(
                name=f"{plan.name} {figure.title}",
                num_candidates=num_candidates,
                ids=ids,
                clean=goal.is_right(ranks.clean, figure.k).tolist(),
                masks={name: goal.is_right(worst, figure.k).tolist() for name, worst in ranks.attacked.items()},
                rounded=rounded,
                figure=figure,
            )
        )
    return rows


def _pack(embeds: torch.Tensor) -> list[str]:
    """Embeddings as JSON holds them, bit for bit."""
    return [b64encode(row.astype("<f4").tobytes()).decode() for row in embeds.cpu().numpy()]


def _unpack(texts: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.frombuffer(b64decode(text), "<f4") for text in texts]).copy())
