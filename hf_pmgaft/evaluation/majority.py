"""Random defences: what fresh draws say of images, clean and under attack.

They are drawn for the verdict alone: draws that picked a point would be kinder to the attack than to the defence, and
a point that was met by one unlucky draw is no misclassified one (after the worst case of Croce et al., ICML 2022,
arXiv 2202.13711). By which rule they make a verdict, says `draw_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..attacks.expected import attack_expected, attack_to_the_end
from ..attacks.spec import AttackSpec
from ..defences import Defence
from ..noise import draw_seeds
from .classification import Sources
from .draw_rules import Drawn, Noted, Rule
from .judge import Batch, Judge, check_finite
from .outcomes import worst_case
from .plan import Plan, group_of
from .reader import Reader
from .verdicts import CLEAN, PIXELS, Judged, Verdicts

# What is noted of an image: what its draws say, and what those of the point rounded to 8 bits do, if there is one.
Points = list[Noted]


def judge_random(
    judge: Judge, defence: Defence, plan: Plan, reader: Reader, rule: Rule, draws: int, sources: Sources | None = None
) -> None:
    """Judges a set by a random defence, clean and under each attack. Verdicts on file are not computed again.

    Args:
        judge (`Judge`): Reads, attacks and holds the verdicts, of which it knows all afterwards.
        defence (`Defence`): Images in [0,1] and a seed each -> logits.
        plan (`Plan`): The set, its rows, and attacks that name their attackers.
        rule (`Rule`): How draws make a verdict.
        draws (`int`): Draws of a verdict.
        sources (`dict[str, ZeroShotClassifier]`, *optional*): By name, on what attacks that name a source make images.
    """
    judge.check_images(reader, plan.rows)
    jury = _Jury(judge, defence, rule, draws, plan.name)

    # Without an attack
    looked_at = judge.batches(
        reader, CLEAN, plan.rows, plan.rows, jury.stands, device=defence.device, with_digests=True
    )
    for batch in looked_at:
        judge.note(reader, PIXELS, batch.rows, batch.digests)
        judge.note(reader, CLEAN, batch.rows, [[noted] for noted in jury.noted(batch, batch.images)])
    clean = judge.verdicts.of(plan.name, CLEAN)
    right = [row for row in plan.rows if jury.stands(clean[row])]

    # An image that is wrong at a point of a ball is wrong there in every larger one: later attacks leave it out.
    standing: dict[str, list[int]] = {}
    for spec in plan.attacks:
        candidates = plan.rows if spec.attack == "corruption" else standing.get(group_of(spec), right)
        for batch in judge.batches(reader, spec.name, candidates, plan.rows, jury.stands, device=defence.device):
            points = _attack(judge, spec, defence, batch, plan.data.class_names, sources or {})
            judge.note(reader, spec.name, batch.rows, jury.noted_points(spec, batch, points))

        # An image whose rounded version stands goes on, until 8 bits hold what fools it.
        values = judge.verdicts.of(plan.name, spec.name)
        standing[group_of(spec)] = [row for row in candidates if rule.drawn(values[row][-1]).stands]


def judged_random(plan: Plan, verdicts: Verdicts, rule: Rule, headline: str, eight_bit: bool) -> list[Judged]:
    """Sums the verdicts on a set up in one row, as for other classifiers, with what draws say beside it.

    Args:
        plan (`Plan`), verdicts (`Verdicts`): The set and its attacks; all verdicts on it.
        rule (`Rule`): How draws make a verdict.
        headline (`str`): The threat whose images were rounded to 8 bits, if `eight_bit`.
    """
    noted = {name: verdicts.of(plan.name, name) for name in (CLEAN, *plan.names)}
    clean = {row: rule.drawn(noted[CLEAN][row][0]) for row in plan.rows}

    # An image that was wrong before is not attacked again: its worst point stays that one.
    worst: dict[str, dict[int, Drawn]] = {}
    drawn = {CLEAN: list(clean.values())}
    for spec in plan.attacks:
        before = {} if spec.attack == "corruption" else worst.get(group_of(spec), clean)
        after = {row: rule.drawn(values[0]) for row, values in noted[spec.name].items()}
        for row, earlier in before.items():
            after[row] = earlier.worst_with(after[row]) if row in after else earlier
        worst[group_of(spec)] = after
        drawn[spec.name] = [after[row] for row in plan.rows]

    rounded = None
    if eight_bit:
        columns = [[each.stands for each in clean.values()]]
        for name in plan.leading_to(headline):
            columns.append([row not in noted[name] or rule.drawn(noted[name][row][-1]).stands for row in plan.rows])
        rounded = worst_case(*columns)

    masks = {name: [each.stands for each in drawn[name]] for name in plan.names}
    right = [each.stands for each in drawn[CLEAN]]
    return [Judged(plan.name, len(plan.texts), list(plan.rows), right, masks, rounded, drawn=drawn)]


def draw_figures(drawn: Mapping[str, Sequence[Drawn]], of_headline: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means over images of what draws say, clean, of each attack, and of the worst of those of the headline.

    Example:
        >>> right, wrong = Drawn(True, 1.0, True, True), Drawn(False, 0.25, False, True)
        >>> drawn = {"clean": [right, right], "a": [right, right], "b": [wrong, right]}
        >>> draw_figures(drawn, ["a", "b"])["robust"]
        {'mean_share': 0.625, 'every_draw': 0.5, 'first_half': 1.0}
    """
    columns = [drawn[name] for name in of_headline]
    robust = [first.worst_with(*others) for first, *others in zip(*columns, strict=True)]
    return {name: _means(column) for name, column in {"robust": robust, **drawn}.items()}


def _means(column: Sequence[Drawn]) -> dict[str, float]:
    columns = {
        "mean_share": [each.share for each in column],
        "every_draw": [each.every for each in column],
        "first_half": [each.first_half for each in column],
    }
    if column[0].abstains is not None:
        columns["abstained"] = [each.abstains for each in column]
    return {key: sum(values) / len(values) for key, values in columns.items()}


def _attack(
    judge: Judge, spec: AttackSpec, defence: Defence, batch: Batch, class_names: Sequence[str], sources: Sources
) -> torch.Tensor:
    """The points that an attack comes to, `[B,3,H,W]`."""
    if spec.source is not None:
        run = partial(attack_to_the_end, spec)
        return judge.attack(spec, sources[spec.source_name], batch, run=run, class_names=class_names)
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
    rule: Rule
    draws: int
    name: str

    @torch.no_grad()
    def noted(self, batch: Batch, points: torch.Tensor) -> list[Noted]:
        """What is noted of each point of a batch."""
        count = len(points)
        seeds = self.judge.seeds(batch)
        at_once = max(1, self.judge.batch_size // count)  # of few images, several draws fill a batch
        marks = []
        for numbers in torch.arange(self.draws, device=seeds.device).split(at_once):
            drawn = draw_seeds(seeds.repeat(len(numbers)), "verdict", numbers.repeat_interleave(count))
            logits = self.defence(points.repeat(len(numbers), 1, 1, 1), drawn)
            check_finite(logits, self.name, batch.rows)
            labels = batch.labels.repeat(len(numbers))
            marks.append(self.rule.mark(logits, labels).view(len(numbers), count))
        return self.rule.noted(torch.cat(marks).T, batch.labels)

    def noted_points(self, spec: AttackSpec, batch: Batch, points: torch.Tensor) -> list[Points]:
        """What is noted of points that an attack came to: those that fool the defence are rounded, too."""
        noted = [[of_point] for of_point in self.noted(batch, points)]
        fooled = [place for place, values in enumerate(noted) if not self.stands(values)]
        if self.judge.eight_bit and fooled:
            rows = [batch.rows[place] for place in fooled]
            part = replace(batch, rows=rows, images=batch.images[fooled], labels=batch.labels[fooled])
            rounded = spec.round_to_8_bits(part.images, points[fooled])
            for place, of_point in zip(fooled, self.noted(part, rounded), strict=True):
                noted[place].append(of_point)
        return noted

    def stands(self, points: Points) -> bool:
        """Whether an image is right at the point of an attack, before it is rounded."""
        return self.rule.drawn(points[0]).stands
