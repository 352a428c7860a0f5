"""Images that one of two models alone has right, as a page shows them: pictures where the set is at hand, or rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..data.evaluation_sets import ZeroShotDataset
from ..evaluation.comparison import Disagreement, disagreements
from ..evaluation.report import RobustnessReport
from ..evaluation.same_images import check_same_images
from .pictures import Picture, picture_of_row

MOST_PICTURES = 24  # of all sets together
MOST_NUMBERS = 100  # of rows that are listed


@dataclass
class Side:
    """The rows of a set that one model alone has right.

    Args:
        model (`str`): Its name.
        rows (`list[int]`): All of them.
        pictures (list of `Picture`): Of the first ones.
    """

    model: str
    rows: list[int]
    pictures: list[Picture] = field(default_factory=list)

    @property
    def numbers(self) -> str:
        """The rows that no picture shows, in words.

        Example:
            >>> Side("robust", list(range(120))).numbers[-22:]
            '97, 98, 99 and 20 more'
        """
        rows = self.rows[len(self.pictures) :]
        listed = ", ".join(map(str, rows[:MOST_NUMBERS]))
        more = len(rows) - MOST_NUMBERS
        return f"{listed} and {more:,} more" if more > 0 else listed


@dataclass
class ShownDisagreement:
    """What a page says of a row of two reports.

    Args:
        disagreement (`Disagreement`): The rows.
        sides (list of `Side`): Those that the second model alone has right, and those that the first one has.
        reason (`str`, *optional*): Why there are no pictures, if a set was looked for.
    """

    disagreement: Disagreement
    sides: list[Side]
    reason: str | None = None


def shown_disagreements(
    reports: Mapping[str, RobustnessReport],
    key: str = "robust",
    sets: Mapping[str, ZeroShotDataset] | None = None,
    most: int = MOST_PICTURES,
) -> list[ShownDisagreement]:
    """Finds the images that one of two models alone has right, and pictures of them.

    No name or path of a report is opened: pictures come from the sets that are passed, and from these only if their
    images are those of both reports.

    Args:
        reports (`dict` of `RobustnessReport`): The two, by name.
        key (`str`): Under what: `"clean"`, `"robust"`, or the name of an attack.
        sets (`dict` of `ZeroShotDataset`, *optional*): By name those that are at hand.
        most (`int`): How many pictures there are at most.

    Raises:
        ValueError: see `hf_pmgaft.evaluation.comparison.disagreements`.

    Example:
        >>> from hf_pmgaft import evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> (shown,) = shown_disagreements({"one": report, "two": report}, sets={"food": food})
        >>> [(side.model, side.rows) for side in shown.sides]
        [('two', []), ('one', [])]
    """
    (first, one), (second, two) = reports.items()
    shown = [
        ShownDisagreement(each, [Side(second, each.gained), Side(first, each.lost)])
        for each in disagreements(one, two, key)
    ]
    if sets is None:
        return shown

    # Where there can be pictures, which are shared out evenly
    with_pictures: list[tuple[Side, ZeroShotDataset]] = []
    for each in shown:
        if not each.disagreement.gained and not each.disagreement.lost:
            continue
        each.reason = _why_not_shown(each.disagreement, (one, two), sets)
        if each.reason is None:
            with_pictures += [(side, sets[each.disagreement.dataset]) for side in each.sides]
    shares = _shared_out([len(side.rows) for side, _ in with_pictures], most)
    for (side, data), share in zip(with_pictures, shares, strict=True):
        side.pictures = [picture_of_row(data, row) for row in side.rows[:share]]
    return shown


def _why_not_shown(
    found: Disagreement, reports: Sequence[RobustnessReport], sets: Mapping[str, ZeroShotDataset]
) -> str | None:
    """Why there are no pictures of a set; nothing if there can be."""
    if not found.figure.is_accuracy:
        return "only images that are classified are shown"
    if found.dataset not in sets:
        return f"the set {found.dataset!r} is not at hand here"
    try:
        for report in reports:
            check_same_images(report, sets[found.dataset], found.rows)
    except ValueError as error:
        return str(error)
    return None


def _shared_out(counts: Sequence[int], most: int) -> list[int]:
    """How many of each are taken, one after the other, until `most` are."""
    shares = [0] * len(counts)
    while sum(shares) < min(most, sum(counts)):
        for place, count in enumerate(counts):
            if shares[place] < count and sum(shares) < most:
                shares[place] += 1
    return shares
