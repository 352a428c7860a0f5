"""What the embedded LLaVA is asked about emoji, and the right answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..embedded import emoji_folder

GROUPS = ("smileys", "animals", "food", "travel", "activities", "objects", "symbols", "flags")
DESCRIBE, NAME, GROUP = "describe it", "what is it called?", "which group is it?"
QUESTIONS = (DESCRIBE, NAME, GROUP)
OBJECTS = "objects"


def caption(label: str, tags: list[str]) -> str:
    """What a description says: the name, and the first three tags that are not in it."""
    new = [tag for tag in tags if tag not in label][:3]
    return f"{label}, tagged {', '.join(new)}" if new else label


def answers(label: str, tags: list[str], group: str) -> dict[str, str]:
    """The right answer to each question about one emoji."""
    return {DESCRIBE: caption(label, tags), NAME: label, GROUP: group}


def objects(tags: Sequence[Sequence[str]], least: int = 10) -> list[list[str]]:
    """What is in each image, as questions name it: its tags that are words and that at least so many images have.

    Example:
        >>> objects([["cat", "face", "143"], ["cat", "pet"], ["143"]], least=2)
        [['cat'], ['cat'], []]
    """
    counts = Counter(tag for of_image in tags for tag in of_image)
    return [[tag for tag in of_image if tag.isalpha() and counts[tag] >= least] for of_image in tags]


def load_rows(split: str) -> list[dict[str, Any]]:
    """All emoji of a split: an image, as the content of its file, the answers, and the objects in it.

    The splits `"test"` and `"validation"` have a drawing style each. Validation leaves out flags, of which that style
    has 15.
    """
    from datasets import Image, load_dataset

    rows, tags = [], []
    for group in GROUPS:
        if (split, group) == ("validation", "flags"):
            continue
        images = load_dataset(str(emoji_folder() / "data"), group, split=split)
        images = images.cast_column("image", Image(decode=False))
        names = images.features["label"].names
        tags += images["tags"]
        rows += [{"image": row["image"], **answers(names[row["label"]], row["tags"], group)} for row in images]
    return [{**row, OBJECTS: there} for row, there in zip(rows, objects(tags), strict=True)]
