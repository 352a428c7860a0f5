"""`Album`: some images of each set as attacks left them, kept while they are judged, to stand beside the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..attacks.spec import AttackSpec
from ..defences import Defence
from ..zero_shot.segmenter import Segmenter
from .outcomes import count_right
from .plan import Plan, sample_ids
from .report import SetResult

CANDIDATES = 4  # for each image that is shown, so that there are some that fell and some that stood
SEGMENTED_FELL = 0.5  # a segmented image fell if the attack left less than this share of its right pixels


@dataclass(frozen=True)
class Example:
    """An image that was right without an attack, and what an attack of the headline threat made of it.

    Args:
        dataset (`str`), row (`int`): Where it is from.
        attack (`str`): Of the attacks, the one that left least right.
        fell (`bool`): Whether it is wrong by the verdicts of the report; of segmentation, whether the attack left less
            than half of the pixels that were right.
        images (`torch.Tensor`): Clean and attacked, `[2,3,H,W]` in [0,1].
        truth (`str`): The right class, an own text, or the target that it was pulled to.
        said (`tuple[str, str]`, *optional*): What the model says of both; of segmentation how much is right. None
            under a random defence, where draws differ.
        masks (`torch.Tensor`, *optional*): Of segmentation the right classes, and what the model says of the clean and
            the attacked image, `[3,H,W]`.
        class_names (`dict[int, str]`, *optional*): The names in the masks.
    """

    dataset: str
    row: int
    attack: str
    fell: bool
    images: torch.Tensor
    truth: str
    said: tuple[str, str] | None = None
    masks: torch.Tensor | None = None
    class_names: Mapping[int, str] | None = None


class Album:
    """Keeps what attacks come to on a few rows of each set; nothing is attacked again.

    Args:
        plans (list of `Plan`): The sets and their attacks.
        headline (`str`): The threat whose attacks are kept, with the smaller radii that lead to it.
        most (`int`): Images that are shown of all sets together, but at least one of each.
        seed (`int`): Chooses the rows.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> spec = AttackSpec.parse("fgsm,eps=4/255")
        >>> plan = Plan.of(ZeroShotDataset(dataset, processor, name="food"), [spec])
        >>> album = Album([plan], headline="linf 4/255", most=4, seed=0)
        >>> album.keep("food", spec, [0, 1], images[:2], labels[:2], images[:2])
        >>> result = SetResult("food", 4, 2, 1, 0.5, {}, {"sample_id": [0, 1], "clean": [1, 1], "robust": [0, 1]})
        >>> result.verdicts[spec.name] = [0, 1]
        >>> [(example.row, example.fell) for example in album.examples([plan], {"food": [result]})]
        [(0, True), (1, False)]
    """

    def __init__(self, plans: Sequence[Plan], headline: str, most: int, seed: int):
        self.quota = max(1, most // len(plans))
        self._rows = {plan.name: _candidates(plan, self.quota, seed) for plan in plans}
        self._attacks = {plan.name: set(plan.leading_to(headline)) for plan in plans}
        self._pairs: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
        self._labels: dict[tuple[str, int], torch.Tensor] = {}
        self._said: dict[tuple[str, int, str], torch.Tensor] = {}

    def keep(
        self,
        name: str,
        spec: AttackSpec,
        rows: Sequence[int],
        images: torch.Tensor,
        labels: torch.Tensor,
        points: torch.Tensor,
    ) -> None:
        """Keeps those of an attack's images that may be shown.

        Args:
            name (`str`): Of the set.
            images, points (`torch.Tensor`): Clean and attacked, `[B,3,H,W]` in [0,1].
        """
        if spec.name not in self._attacks[name]:
            return
        for place, row in enumerate(rows):
            if row in self._rows[name]:
                pair = torch.stack([images[place], points[place]]).detach().float().cpu()
                self._pairs.setdefault((name, row), {})[spec.name] = pair
                self._labels[name, row] = labels[place].cpu()

    @torch.no_grad()
    def look(self, plan: Plan, classifier: Any) -> None:
        """Asks a set's classifier or segmenter what it sees in the images that were kept of it."""
        if isinstance(classifier, Defence) and classifier.is_random:
            return
        for (name, row), pairs in self._pairs.items():
            if name != plan.name:
                continue
            for attack, pair in pairs.items():
                logits = classifier(pair.to(classifier.device))
                seen = classifier.predict(logits) if isinstance(classifier, Segmenter) else logits.argmax(1)
                self._said[name, row, attack] = seen.cpu()

    def examples(self, plans: Sequence[Plan], results: Mapping[str, Sequence[SetResult]]) -> list[Example]:
        """Images that were right without an attack, of each set about as many that fell as stood.

        Args:
            results (`dict`): By set its rows of the report. The last one of a segmented set is its pixel accuracy;
                of others the first one decides who fell.
        """
        chosen = []
        for plan in plans:
            result = results[plan.name][-1 if plan.is_segmented else 0]
            places = {row: place for place, row in enumerate(result.verdicts["sample_id"])}
            rows = sorted(row for name, row in self._pairs if name == plan.name)
            for row in rows:
                outcomes = {key: column[places[row]] for key, column in result.verdicts.items()}
                if count_right(outcomes["clean"]) and self._has_worst(plan.name, row, outcomes):
                    chosen.append(self._example(plan, row, outcomes))
        return self.choose(chosen)

    def choose(self, examples: Sequence[Example]) -> list[Example]:
        """As many examples of each set as there is room for, those that fell first; by row.

        An image comes once, also where processes have it as different attacks left it.
        """
        chosen = []
        for name in dict.fromkeys(example.dataset for example in examples):
            by_row = {example.row: example for example in examples if example.dataset == name}
            of_set = [by_row[row] for row in sorted(by_row)]
            fell = [example for example in of_set if example.fell]
            stood = [example for example in of_set if not example.fell]
            count = max((self.quota + 1) // 2, self.quota - len(stood))
            chosen += fell[:count] + stood[: self.quota - len(fell[:count])]
        return chosen

    def _worst(self, name: str, row: int, outcomes: Mapping[str, Any]) -> str:
        """The attack that left least right, of those whose image was kept."""
        return min(self._pairs[name, row], key=lambda attack: count_right(outcomes[attack]))

    def _has_worst(self, name: str, row: int, outcomes: Mapping[str, Any]) -> bool:
        """Whether the image that decided the verdict was kept, and is not from an earlier run."""
        return count_right(outcomes[self._worst(name, row, outcomes)]) <= count_right(outcomes["robust"])

    def _example(self, plan: Plan, row: int, outcomes: Mapping[str, Any]) -> Example:
        attack = self._worst(plan.name, row, outcomes)
        seen = self._said.get((plan.name, row, attack))
        found = {"dataset": plan.name, "row": row, "attack": attack, "images": self._pairs[plan.name, row][attack]}
        if plan.is_segmented:
            before_and_after = (outcomes["clean"], outcomes[attack])
            return _segmented(plan, self._labels[plan.name, row], seen, before_and_after, found)

        label = int(self._labels[plan.name, row].flatten()[0])
        return Example(
            **found,
            fell=not outcomes[attack],
            truth=plan.texts[label],
            said=None if seen is None else (plan.texts[int(seen[0])], plan.texts[int(seen[1])]),
        )


def _candidates(plan: Plan, quota: int, seed: int) -> set[int]:
    """The rows of a set that may be shown. All segmented images are shown, which are large."""
    count = quota if plan.is_segmented else quota * CANDIDATES
    return {plan.rows[place] for place in sample_ids(len(plan.rows), count, seed)}


def _segmented(
    plan: Plan, mask: torch.Tensor, seen: torch.Tensor, outcomes: Sequence[list[int]], found: dict[str, Any]
) -> Example:
    """An example of a segmented set, whose outcomes are `[right, labelled]` pixels."""
    (right, labelled), (right_after, _) = outcomes
    masks = torch.stack([mask, *seen])
    numbers = [number for number in masks.unique().tolist() if number >= 0]
    return Example(
        **found,
        fell=right_after < SEGMENTED_FELL * right,
        truth=", ".join(plan.texts[number] for number in mask.unique().tolist() if number >= 0),
        said=tuple(f"{count / labelled:.1%} of the pixels right" for count in (right, right_after)),
        masks=masks,
        class_names={number: plan.texts[number] for number in numbers},
    )
