"""The few-shot set: the emoji with the most drawings, trained on what pre-training saw, tested in unseen styles."""

from collections import defaultdict
from dataclasses import dataclass

import art
import numpy as np

CLASSES = 40
SHOTS = 16  # training drawings that every class has at least
# Of the styles that pre-training did not see. The others of them, marked as unseen, are trained on with those it saw.
TEST = ("twemoji", "noto-emoji", "lucide", "picon", "pinhead")
VALIDATION = ("noto-v1", "hugeicons", "whh")


@dataclass(frozen=True)
class FewShots:
    """What the set is made of.

    Attributes:
        emoji: Indices of the classes, in Unicode order.
        rows: By split, the drawings' rows in the arrays of `art.render_all`.
        counted: How many emoji have at least so many different drawings, by that number.
    """

    emoji: list[int]
    rows: dict[str, list[int]]
    counted: dict[int, int]


def choose(arrays: dict[str, np.ndarray]) -> FewShots:
    """Takes the emoji with the most different drawings, of those that have enough to train on and one to test.

    Nothing is left to chance: emoji with as many drawings are taken in Unicode order.
    """
    by_emoji = different_drawings(arrays)
    totals = {emoji: sum(map(len, splits.values())) for emoji, splits in by_emoji.items()}
    counted = {count: sum(total >= count for total in totals.values()) for count in range(1, max(totals.values()) + 1)}

    enough = [
        emoji
        for emoji, splits in by_emoji.items()
        if len(splits["train"]) >= SHOTS and splits["validation"] and splits["test"]
    ]
    chosen = sorted(sorted(enough, key=lambda emoji: (-totals[emoji], emoji))[:CLASSES])
    splits = ("train", "validation", "test")
    rows = {split: [row for emoji in chosen for row in by_emoji[emoji][split]] for split in splits}
    return FewShots(chosen, rows, counted)


def different_drawings(arrays: dict[str, np.ndarray]) -> dict[int, dict[str, list[int]]]:
    """Rows by emoji and split, without those within `art.COPY` of one before them: training, validation, test."""
    names = list(art.load_styles())
    images = art.on_white(arrays["frames"]).astype(np.int16)
    by_emoji = defaultdict(lambda: {"train": [], "validation": [], "test": []})
    for row, emoji in enumerate(arrays["emoji"].tolist()):
        by_emoji[emoji][split_of(names[arrays["style"][row]])].append(row)

    different = {}
    for emoji, splits in by_emoji.items():
        kept: list[int] = []
        for rows in splits.values():
            for row in list(rows):
                if (np.abs(images[kept] - images[row]).mean((1, 2, 3)) < 255 * art.COPY).any():
                    rows.remove(row)
                else:
                    kept.append(row)
        different[emoji] = splits
    return different


def split_of(style: str) -> str:
    """The split that a style's drawings go to."""
    if style in TEST:
        return "test"
    return "validation" if style in VALIDATION else "train"


def styles(arrays: dict[str, np.ndarray], few: FewShots) -> set[str]:
    """The styles of the set's drawings."""
    names = list(art.load_styles())
    return {names[arrays["style"][row]] for rows in few.rows.values() for row in rows}
