"""Majority: what fresh draws say of images under a defence that draws at random, clean and under attack.

A point is right if more than half of its draws are. These are drawn for the verdict alone: draws that picked a point
would be kinder to the attack than to the defence, and a point that was met by one unlucky draw is no misclassified one
(after the worst case of Croce et al., ICML 2022, arXiv 2202.13711).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch

from ..attacks.expected import attack_expected, attack_to_the_end
from ..attacks.losses import correct
from ..attacks.spec import AttackSpec
from ..defences import Defence
from ..noise import draw_seeds
from .judge import Batch, Judge, check_finite
from .outcomes import worst_case
from .plan import Plan, group_of
from .reader import Reader
from .verdicts import CLEAN, PIXELS, Judged, Verdicts

# What is noted of an image: which draws are right, 1 or 0 each; and those of the point rounded to 8 bits, if there is
# one. An abstention is a draw that is not right.
Noted = list[list[int]]


class Drawn(NamedTuple):
    """What draws say of an image at one point, or the worst of several points.

    Args:
        stands (`bool`): Whether more than half of the draws are right.
        share (`float`): How many of them are.
        every (`bool`): Whether all of them are: the verdict, if one wrong draw were enough.
        first_half (`bool`): The verdict of the first half of them.
    """

    stands: bool
    share: float
    every: bool
    first_half: bool

    @classmethod
    def of(cls, draws: Sequence[int]) -> Drawn:
        """What draws say, 1 for right and 0 for wrong; a tie is wrong.

        Example:
            >>> Drawn.of([1, 1, 0, 0])
            Drawn(stands=False, share=0.5, every=False, first_half=True)
        """
        half = draws[: (len(draws) + 1) // 2]
        return cls(is_majority(draws), sum(draws) / len(draws), all(draws), is_majority(half))

    def worst_with(self, *others: Drawn) -> Drawn:
        """The least of each.

        Example:
            >>> Drawn.of([1, 1, 1]).worst_with(Drawn.of([1, 1, 0]))
            Drawn(stands=True, share=0.6666666666666666, every=False, first_half=True)
        """
        return Drawn(*map(min, zip(self, *others, strict=True)))


def is_majority(draws: Sequence[int]) -> bool:
    """Whether more than half of some draws are right.

    Example:
        >>> is_majority([1, 1, 0]), is_majority([1, 0])
        (True, False)
    """
    return 2 * sum(draws) > len(draws)


def judge_random(judge: Judge, defence: Defence, plan: Plan, reader: Reader, draws: int) -> None:
    """Judges a set by a random defence, clean and under each attack. Verdicts on file are not computed again.

    Args:
        judge (`Judge`): Reads, attacks and holds the verdicts, of which it knows all afterwards.
        defence (`Defence`): Images in [0,1] and a seed each -> logits.
        plan (`Plan`): The set, its rows, and attacks that name their attackers.
        draws (`int`): Draws of a verdict.
    """
    judge.check_images(reader, plan.rows)
    jury = _Jury(judge, defence, draws, plan.name)

    # Without an attack
    looked_at = judge.batches(reader, CLEAN, plan.rows, plan.rows, _stands, device=defence.device, with_digests=True)
    for batch in looked_at:
        judge.note(reader, PIXELS, batch.rows, batch.digests)
        judge.note(reader, CLEAN, batch.rows, [[right] for right in jury.right(batch, batch.images)])
    clean = judge.verdicts.of(plan.name, CLEAN)
    right = [row for row in plan.rows if _stands(clean[row])]

    # An image that is wrong at a point of a ball is wrong there in every larger one: later attacks leave it out.
    standing: dict[str, list[int]] = {}
    for spec in plan.attacks:
        candidates = plan.rows if spec.attack == "corruption" else standing.get(group_of(spec), right)
        for batch in judge.batches(reader, spec.name, candidates, plan.rows, _stands, device=defence.device):
            points = _attack(judge, spec, defence, batch, plan.data.class_names)
            judge.note(reader, spec.name, batch.rows, jury.noted(spec, batch, points))

        # An image whose rounded version stands goes on, until 8 bits hold what fools it.
        values = judge.verdicts.of(plan.name, spec.name)
        standing[group_of(spec)] = [row for row in candidates if is_majority(values[row][-1])]


def judged_random(plan: Plan, verdicts: Verdicts, headline: str, eight_bit: bool) -> list[Judged]:
    """Sums the verdicts on a set up in one row, as for other classifiers, with what draws say beside it.

    Args:
        plan (`Plan`), verdicts (`Verdicts`): The set and its attacks; all verdicts on it.
        headline (`str`): The threat whose images were rounded to 8 bits, if `eight_bit`.
    """
    noted = {name: verdicts.of(plan.name, name) for name in (CLEAN, *plan.names)}
    clean = {row: Drawn.of(noted[CLEAN][row][0]) for row in plan.rows}

    # An image that was wrong before is not attacked again: its worst point stays that one.
    worst: dict[str, dict[int, Drawn]] = {}
    drawn = {CLEAN: list(clean.values())}
    for spec in plan.attacks:
        before = {} if spec.attack == "corruption" else worst.get(group_of(spec), clean)
        after = {row: Drawn.of(values[0]) for row, values in noted[spec.name].items()}
        for row, earlier in before.items():
            after[row] = earlier.worst_with(after[row]) if row in after else earlier
        worst[group_of(spec)] = after
        drawn[spec.name] = [after[row] for row in plan.rows]

    rounded = None
    if eight_bit:
        columns = [[each.stands for each in clean.values()]]
        for name in plan.leading_to(headline):
            columns.append([is_majority(noted[name][row][-1]) if row in noted[name] else True for row in plan.rows])
        rounded = worst_case(*columns)

    masks = {name: [each.stands for each in drawn[name]] for name in plan.names}
    right = [each.stands for each in drawn[CLEAN]]
    return [Judged(plan.name, len(plan.texts), list(plan.rows), right, masks, rounded, drawn=drawn)]


def draw_figures(drawn: Mapping[str, Sequence[Drawn]], of_headline: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means over images of what draws say, clean, of each attack, and of the worst of those of the headline.

    Example:
        >>> drawn = {"clean": [Drawn.of([1, 1, 1, 1])], "a": [Drawn.of([1, 1, 1, 0])], "b": [Drawn.of([1, 1, 0, 1])]}
        >>> draw_figures(drawn, ["a", "b"])["robust"]
        {'mean_share': 0.75, 'every_draw': 0.0, 'first_half': 1.0}
    """
    columns = [drawn[name] for name in of_headline]
    robust = [first.worst_with(*others) for first, *others in zip(*columns, strict=True)]
    return {name: _means(column) for name, column in {"robust": robust, **drawn}.items()}


def _means(column: Sequence[Drawn]) -> dict[str, float]:
    shares, every, first_half = ([getattr(drawn, key) for drawn in column] for key in ("share", "every", "first_half"))
    means = {"mean_share": shares, "every_draw": every, "first_half": first_half}
    return {key: sum(values) / len(values) for key, values in means.items()}


def _attack(
    judge: Judge, spec: AttackSpec, defence: Defence, batch: Batch, class_names: Sequence[str]
) -> torch.Tensor:
    """The points that an attack comes to, `[B,3,H,W]`."""
    if spec.attacker is None:  # such as a corruption, which looks at no classifier
        return judge.attack(spec, defence, batch)
    attack = attack_to_the_end if spec.attacker == "unaware" else attack_expected
    seen = defence.seen_by(spec.attacker)
    return judge.attack(spec, seen, batch, run=partial(attack, spec), class_names=class_names)


@dataclass(frozen=True)
class _Jury:
    """Draws of a defence that no attack saw, on the images of a set."""

    judge: Judge
    defence: Defence
    draws: int
    name: str

    @torch.no_grad()
    def right(self, batch: Batch, points: torch.Tensor) -> list[list[int]]:
        """Which draws of each point of a batch are right."""
        seeds = self.judge.seeds(batch)
        right = []
        for index in range(self.draws):
            logits = self.defence(points, draw_seeds(seeds, "verdict", index))
            check_finite(logits, self.name, batch.rows)
            right.append(correct(logits, batch.labels))
        return torch.stack(right, dim=1).int().tolist()

    def noted(self, spec: AttackSpec, batch: Batch, points: torch.Tensor) -> list[Noted]:
        """What is noted of points that an attack came to: those that fool the defence are rounded, too."""
        noted = [[right] for right in self.right(batch, points)]
        fooled = [place for place, values in enumerate(noted) if not _stands(values)]
        if self.judge.eight_bit and fooled:
            rows = [batch.rows[place] for place in fooled]
            part = replace(batch, rows=rows, images=batch.images[fooled], labels=batch.labels[fooled])
            rounded = spec.round_to_8_bits(part.images, points[fooled])
            for place, right in zip(fooled, self.right(part, rounded), strict=True):
                noted[place].append(right)
        return noted


def _stands(noted: Noted) -> bool:
    return is_majority(noted[0])
