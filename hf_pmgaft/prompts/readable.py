"""Names that no text tower can know: ids, numbers, files, and lists of synonyms in place of one name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .shipped import set_with_labels

ENDINGS = "jpe?g|png|gif|bmp|webp|tiff?|npy|npz|txt|csv|json|parquet|tar|gz|zip|pth?"
PLACEHOLDERS = "class|cls|label|category|target|cluster|group|folder|object|item|index|idx|id|image|img|dsc|frame|file"
# By what they are; a name is of the first kind that fits all of it.
KINDS = {
    "ids of WordNet": r"(?i:(.*\W)?n\d{8}(\W.*)?|.*\.[nvasr]\.\d\d)",
    "bare numbers": r"[+-]?\d+([.,]\d+)?",
    "names of files": rf"(?i:.+\.({ENDINGS}))",
    "paths": r"/.*|\w+://.*",
    "numbered placeholders": rf"(?i:({PLACEHOLDERS})[\s_.:-]*\d+)",
    "names with an index before them": r"\d{3}\.\s*[A-Za-z].*",
    "hashes": r"(?i:(?=\D*\d)[0-9a-f]{12,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    # Several commas and a word that is no proper name, or a Latin name at the end. Not "Paris, France", "Berlin,
    # Berlin, Germany" or "salt, pepper, and oil".
    "lists of synonyms": r"(?!.*(\band\b|\bor\b|&))((?=.*,.*,).*,.*\b[a-z]{3,}.*|.*, [A-Z][a-z]+ [a-z]{3,})",
    # A second crane. Not mp3, a320 or ak47.
    "words with a digit at their end": r"[A-Za-z][a-z_]*[a-z]{2}[2-9]",
}
PATTERNS = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}
COUNTED = re.compile(r"([A-Za-z_-]+)(\d+)")


def check_readable(class_names: Sequence[str]) -> None:
    """Raises `ValueError` for class names that stand for something in a list, and mean nothing to a text tower.

    Example:
        >>> check_readable(["boeing 747", "mp3 player", "a320", "ak47"])
        >>> check_readable(["n01443537", "n01629819"])
        Traceback (most recent call last):
        ValueError: 2 of the 2 class names are ids of WordNet, such as 'n01443537', of which a text tower knows ...
    """
    found: dict[str, list[str]] = {}
    words = set(class_names)
    for name in class_names:
        kind = kind_of(name, words)
        if kind is not None:
            found.setdefault(kind, []).append(name)
    # A few of many are signs, or planes.
    if len(found.get("bare numbers", ())) < len(class_names) / 2:
        found.pop("bare numbers", None)
    if not found and _are_counted(class_names):
        found["one word and a count"] = list(class_names)
    if not found:
        return

    count = sum(len(names) for names in found.values())
    kinds = " and ".join(f"{kind}, such as {names[0]!r:.60}" for kind, names in list(found.items())[:3])
    known = set_with_labels(class_names)
    if known is None:
        way_out = "Pass `class_names`, one name in words per label,"
        if "words with a digit at their end" in found:
            way_out += " with a space before a number that belongs to one,"
    else:
        way_out = (
            f"They are the labels of {known}, whose names come with the package: name the set itself (--dataset_name "
            f"{known}), or pass its list as `class_names` (--class_names {known}),"
        )
    raise ValueError(
        f"{count} of the {len(class_names)} class names are {kinds}, of which a text tower knows nothing. {way_out} "
        "or insist by `accept_any_class_names`."
    )


def kind_of(name: str, others: Iterable[str] = ()) -> str | None:
    """What a name is that no text tower can know; `None` for words.

    Args:
        name (`str`): A class name.
        others (`list[str]`): The names beside it: `fish10` is no word where `fish` is one of them.

    Example:
        >>> kind_of("tench, Tinca tinca"), kind_of("Paris, France"), kind_of("img_001.jpg")
        ('lists of synonyms', None, 'names of files')
    """
    text = name.strip()
    counted = COUNTED.fullmatch(text)
    if counted and len(counted[1]) > 2 and counted[1] in others:
        return "words with a digit at their end"
    for kind, pattern in PATTERNS.items():
        if pattern.fullmatch(text):
            return kind
    return None


def _are_counted(class_names: Sequence[str]) -> bool:
    """Whether all names are the same letters and the numbers from 0 or 1: c0, c1, c2."""
    matches = [COUNTED.fullmatch(name.strip()) for name in class_names]
    if not all(matches) or len({match[1] for match in matches}) > 1:
        return False
    numbers = sorted(int(match[2]) for match in matches)
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))
