"""Retrieval: images with captions, each found by the other, clean and under attack; recall at 1, 5 and 10.

A caption that several images have is one caption of all of them. A query is right at k if one of its own is among the
first k of the gallery; who ties with them stands before them.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ..attacks.spec import Spec, leading_to, norm_of, round_to_8_bits, threat_name, within_threat
from ..data.evaluation_sets import RetrievalDataset
from ..modes import at_least_float32
from ..noise import sample_seeds, uniform_noise
from ..zero_shot.classifier import ZeroShotClassifier
from .verdicts import CLEAN, PIXELS, Judged, Verdicts

if TYPE_CHECKING:
    from .evaluate import _Judge, _Plan, _Reader


RECALL_AT = (1, 5, 10)
# Others leave an image at its first wrong answer, too early for recall at 10 and for the gallery.
RETRIEVAL_ATTACKS = ("corruption", "fgsm", "pgd")
TARGET_ATTACKS = ("fgsm", "pgd")
DRAWN = "drawn"
THREATS = {
    "I2T": "the query image is perturbed against its own captions: the attack's loss is over all captions of the "
    "gallery, those of the image being right (margin: its best wrong caption minus its best own). Its rank is that of "
    "its best own caption, under any iterate the worst that the attack met",
    "T2I": "every image of the gallery is perturbed, once, against its own captions: it is the image that the same "
    "attack returned. Each caption is a query, and none of the images was made against that query, so this recall is "
    "an upper bound of what an attacker who knows the query leaves",
    "target": "the query image is pulled to a chosen caption that is not its own: the attack's loss is over all "
    "captions of the gallery, the target being the one to reach (margin: the target minus the best other). Right at k "
    "is who keeps the target out of the first k captions, under any iterate at every point that the attack met",
}
TIES = "a query's own that ties with another stands behind it, a target before it"
_EMBEDS = " embeds"
_ROUNDED = " 8 bit"
_STREAM = 810  # of the numbers that draw targets
_BLOCK = 2**22  # similarities in memory at once


class Gallery:
    """Some rows of a retrieval set with their captions numbered: what one evaluation ranks.

    Rows are `{"images": [3,H,W], "labels": list of int, "sample_id": int}`: the numbers of an image's own captions,
    fewer than others have filled up by the first; or the number of its target.

    Attributes:
        class_names (`list[str]`): The different captions, by number.
        rows (`list[int]`): Rows of the images that are queries.
        own (`dict[int, list[int]]`): By row of the gallery the numbers of its captions.
        targets (`dict[int, int]`): By row the number of its target, if the threat is a pull.

    Raises:
        ValueError: for a row without a caption, a gallery in which nobody can miss, or a target that is not there.
    """

    def __init__(self, data: RetrievalDataset, rows: Sequence[int], seed: int):
        self.data, self.name, self.prompt_templates = data, data.name, data.prompt_templates
        self.native_size, self.resize, self.border = data.native_size, data.resize, data.border
        texts = data.texts(rows)
        numbers = {text: i for i, text in enumerate(dict.fromkeys(text for own in texts.values() for text in own))}
        self.class_names, self.rows = list(numbers), list(rows)
        self.own = {row: [numbers[text] for text in texts[row]] for row in rows}
        few = [f"{len(part)} {kind}" for part, kind in ((rows, "images"), (numbers, "different captions"))]
        if min(len(rows), len(numbers)) <= max(RECALL_AT):
            raise ValueError(
                f"The gallery of {self.name!r} has {' and '.join(few)}, where recall at {max(RECALL_AT)} would be 1 "
                f"whatever the model does. Evaluate more than {max(RECALL_AT)} of each."
            )
        self.targets = {} if data.target is None else self._targets(numbers, seed)
        if self.targets:
            self.rows = list(self.targets)
        self._width = max(map(len, self.own.values()))

    @property
    def shape(self) -> torch.Size:
        """`[3,H,W]` of the images."""
        return self.data.shape

    def __getitem__(self, row: int) -> dict[str, Any]:
        labels = self.targets[row] if self.targets else _filled([self.own[row]], self._width)[0]
        return {"images": self.data[row]["images"], "labels": labels, "sample_id": row}

    def images_of_captions(self) -> list[list[int]]:
        """By caption the places, among the rows, of the images that have it."""
        places: list[list[int]] = [[] for _ in self.class_names]
        for place, row in enumerate(self.rows):
            for caption in self.own[row]:
                places[caption].append(place)
        return places

    def describe(self) -> dict[str, Any]:
        """What the protocol says beside what it says of any set."""
        threats = ("target",) if self.targets else ("I2T", "T2I")
        return {
            "caption_columns": list(self.data.captions.paths),
            "num_images": len(self.own),
            "num_pairs": sum(map(len, self.own.values())),
            "recall_at": list(RECALL_AT),
            "ties": TIES,
            "threats": {name: THREATS[name] for name in threats},
            **({"target": self.data.target} if self.targets else {}),
        }

    def _targets(self, numbers: Mapping[str, int], seed: int) -> dict[int, int]:
        if self.data.target != DRAWN:
            target = numbers.get(self.data.target)
            if target is None:
                raise ValueError(
                    f"You passed the target {self.data.target!r}, which is no caption of the gallery of "
                    f"{self.name!r}. Pass one of its {len(numbers):,} captions, such as {next(iter(numbers))!r}, or "
                    f"{DRAWN!r}."
                )
            targets = {row: target for row, own in self.own.items() if target not in own}
            if not targets:
                raise ValueError(f"Every image of {self.name!r} has the target as its own caption. Pass another one.")
            return targets
        chances = uniform_noise(sample_seeds(seed, 0, torch.tensor(self.rows)), (), _STREAM).tolist()
        targets = {}
        for row, chance in zip(self.rows, chances, strict=True):
            others = len(numbers) - len(self.own[row])
            if not others:
                raise ValueError(f"The image in row {row} of {self.name!r} has every caption. Remove the row.")
            targets[row] = int(chance * others)
            for own in sorted(self.own[row]):
                targets[row] += targets[row] >= own
        return targets


def own_ranks(similarity: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Rank of the best of each query's own, from 1: `[Q,C]`, `[Q,P]` -> `[Q]`. Ties, and NaN, count against it."""
    best = similarity.gather(1, own).amax(1, keepdim=True)
    return 1 + (~(similarity.scatter(1, own, -torch.inf) < best)).sum(1)


def target_ranks(similarity: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Rank of each query's target, from 1: `[Q,C]`, `[Q]` -> `[Q]`. Ties, and NaN, count for the target."""
    return 1 + (similarity > similarity.gather(1, targets.unsqueeze(1))).sum(1)


def text_to_image_ranks(texts: torch.Tensor, images: torch.Tensor, own: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rank of the best own image of each text, from 1, in blocks of texts, so that no whole `[M,N]` is in memory.

    Args:
        texts (`torch.Tensor`): `[M,D]`, unit norm.
        images (`torch.Tensor`): `[N,D]`, unit norm.
        own (list of list of `int`): By text the numbers of its images, at least one.
    """
    found, size = [], max(1, _BLOCK // len(images))
    for start in range(0, len(texts), size):
        part = own[start : start + size]
        table = torch.tensor(_filled(part, max(map(len, part))), device=texts.device)
        found.append(own_ranks(texts[start : start + size] @ images.T, table))
    return torch.cat(found).cpu()


def judge_retrieval(
    judge: _Judge, classifier: ZeroShotClassifier, plan: _Plan, reader: _Reader, mine: Sequence[int]
) -> None:
    """Notes, for this process's images `mine`, ranks and embeddings clean and under each attack.

    Embeddings, unit norm, are kept with the ranks, so that text-to-image recall follows without a second attack.
    """
    gallery, verdicts = plan.data, judge.verdicts
    ranks, worse, best = own_ranks, torch.maximum, 1
    if gallery.targets:
        ranks, worse, best = target_ranks, torch.minimum, len(gallery.class_names)

    def right(rank: int) -> bool:
        return _right(gallery, rank, 1)

    def note(key: str, rows: Sequence[int], images: torch.Tensor, labels: torch.Tensor, met=None) -> None:
        with torch.no_grad():
            embeds = classifier.embed(images)
            logits = classifier.logits(embeds)
            judge.check_finite(logits, gallery.name, rows)
            found = ranks(logits, labels)
        found = found if met is None else worse(found, met)
        if not gallery.targets:  # Before the ranks: a row that has a rank is done.
            verdicts.add(gallery.name, key + _EMBEDS, rows, _pack(F.normalize(at_least_float32(embeds), dim=-1)))
        verdicts.add(gallery.name, key, rows, found.tolist())

    for rows, images, labels in judge.batches(reader, CLEAN, mine, mine, right):
        verdicts.add(gallery.name, PIXELS, rows, judge.digests(images, labels))
        note(CLEAN, rows, images.to(classifier.device), labels.to(classifier.device))
    for spec, key in zip(plan.specs, plan.names, strict=True):
        for rows, images, labels in judge.batches(reader, key, mine, mine, right):
            images, labels = images.to(classifier.device), labels.to(classifier.device)
            seen = _Seen(classifier, spec, images, labels, ranks, worse, best)
            aimed = {**spec, "targeted": True} if gallery.targets else spec
            adversarial = judge.adversarial(aimed, seen, rows, images, labels, False)
            if judge.eight_bit:
                note(key + _ROUNDED, rows, round_to_8_bits(spec, images, adversarial), labels)
            note(key, rows, adversarial, labels, seen.met if judge.any_iterate else None)


class _Seen:
    """A classifier that keeps the worst rank of each image over the points inside its threat that pass by."""

    def __init__(self, classifier, spec: Spec, images: torch.Tensor, labels: torch.Tensor, ranks, worse, best: int):
        self.classifier, self.spec, self.images, self.labels = classifier, spec, images, labels
        self.ranks, self.worse = ranks, worse
        self.met = torch.full((len(images),), best, device=images.device)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(points)
        with torch.no_grad():
            allowed = within_threat(self.spec, self.images, points)
            self.met = torch.where(allowed, self.worse(self.ranks(logits, self.labels), self.met), self.met)
        return logits


def judged_retrieval(
    plan: _Plan, verdicts: Verdicts, headline: str, any_iterate: bool, eight_bit: bool, texts: torch.Tensor
) -> list[Judged]:
    """Recalls at each k, image-to-text and text-to-image, or how many keep the target out, from all that was noted.

    Args:
        plan: The set, its gallery and attacks.
        texts (`torch.Tensor`): Embeddings of the captions, `[M,D]`.
    """
    gallery = plan.data
    keys = [CLEAN, *plan.names]
    keys += [key + _ROUNDED for key in leading_to(plan.specs, headline)] if eight_bit else []

    def noted(key: str) -> list[Any]:
        given = verdicts.of(gallery.name, key)
        return [given[row] for row in plan.rows]

    by_image = {key: torch.tensor(noted(key)) for key in keys}
    if gallery.targets:
        return _judged(plan, "target@", plan.rows, len(texts), by_image, headline, any_iterate, eight_bit)
    own = gallery.images_of_captions()
    by_text = {}
    for key in keys:
        images = _unpack(noted(key + _EMBEDS)).to(texts.device)
        by_text[key] = text_to_image_ranks(texts, images, own)
    options = (headline, any_iterate, eight_bit)
    found = _judged(plan, "I2T R@", plan.rows, len(texts), by_image, *options)
    return found + _judged(plan, "T2I R@", list(range(len(texts))), len(plan.rows), by_text, *options)


def _judged(plan, figure, ids, candidates, ranks, headline, any_iterate, eight_bit) -> list[Judged]:
    """One row for each k, from ranks `[Q]` by key."""
    gallery, clean = plan.data, ranks[CLEAN]
    worse = torch.minimum if gallery.targets else torch.maximum
    worst, groups = {}, {}
    for spec, key in zip(plan.specs, plan.names, strict=True):
        group, worst[key] = norm_of(spec) or threat_name(spec), ranks[key]
        if any_iterate and spec["attack"] != "corruption":
            worst[key] = groups[group] = worse(ranks[key], groups.get(group, clean))
    rounded = None
    if eight_bit:
        rounded = [clean] * any_iterate + [ranks[key + _ROUNDED] for key in leading_to(plan.specs, headline)]
    return [
        Judged(
            name=f"{gallery.name} {figure}{k}",
            num_classes=candidates,
            ids=ids,
            clean=_right(gallery, clean, k).tolist(),
            masks={key: _right(gallery, found, k).tolist() for key, found in worst.items()},
            rounded=None if rounded is None else torch.stack([_right(gallery, r, k) for r in rounded]).all(0).tolist(),
            figure=f"{figure}{k}",
        )
        for k in RECALL_AT
    ]


def _right(gallery: Gallery, ranks: Any, k: int) -> Any:
    return ranks > k if gallery.targets else ranks <= k


def _filled(lists: Sequence[Sequence[int]], width: int) -> list[list[int]]:
    """Lists of one length, the shorter ones filled up by their first."""
    return [[*own, *[own[0]] * (width - len(own))] for own in lists]


def _pack(embeds: torch.Tensor) -> list[str]:
    """Embeddings as JSON holds them, bit for bit."""
    return [b64encode(row.astype("<f4").tobytes()).decode() for row in embeds.cpu().numpy()]


def _unpack(texts: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.frombuffer(b64decode(text), "<f4") for text in texts]).copy())
