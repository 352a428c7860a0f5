"""Class names: texts that differ, one per label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .characters import check_visible
from .names import names_in_order, prompt_name
from .shipped import shipped_class_names, shipped_lists


def check_class_names(class_names: Sequence[str] | str) -> list[str]:
    """Returns the names as a list, or raises `ValueError` if one is empty or stands twice.

    An `id2label`, a dict of the numbers 0 to K-1, gives its names in that order, and a text such as `"imagenet"` those
    of the package's list of that name.

    Example:
        >>> check_class_names(("tree frog", "toad"))
        ['tree frog', 'toad']
        >>> check_class_names({"1": "toad", "0": "tree frog"})
        ['tree frog', 'toad']
        >>> check_class_names("cifar10")[0]
        'airplane'
    """
    if isinstance(class_names, str) and class_names in shipped_lists():
        class_names = shipped_class_names(class_names)
    names = names_in_order(class_names)
    if len(names) < 2:
        raise ValueError(f"You passed {len(names)} class name(s); a classifier needs at least 2. Pass `class_names`.")

    # Each name
    no_texts = [name for name in names if not isinstance(name, str)]
    if no_texts:
        raise ValueError(
            f"Class names {no_texts[:5]!r:.80} are no texts, so no prompt can be made of them. Give each class a name "
            "in words."
        )
    empty = [i for i, name in enumerate(names) if not prompt_name(name)]
    if empty:
        raise ValueError(f"Class names {empty} are empty, so no prompt can be made of them. Give each class a name.")
    for i, name in enumerate(names):
        check_visible(name, f"Class name {i}")
        if "{}" in name:
            raise ValueError(f"Class name {i}, {name!r:.80}, is a template. Pass it as `prompt_templates`.")

    # All of them
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        earlier = first.setdefault(prompt_name(name), i)
        if earlier != i:
            raise ValueError(
                f"Classes {earlier} and {i} share the name {name!r:.80}; their text embeddings would be "
                "the same and no image could be told apart. Give each class its own name."
            )
    return names


def parse_class_names(text: str, most: int | None = None) -> list[str]:
    r"""Reads class names as people type them: one a line or, in one line, with commas between them.

    Names in lines may hold commas, unless a line ends with one. Empty names are dropped, and space around them.

    Args:
        text (`str`): What was typed.
        most (`int`, *optional*): How many there may be.

    Raises:
        ValueError: for fewer than two names, one name twice, or too many, as [`check_class_names`] does.

    Example:
        >>> parse_class_names("cat, dog, hot dog,")
        ['cat', 'dog', 'hot dog']
        >>> parse_class_names("Paris, France\nRome, Italy")
        ['Paris, France', 'Rome, Italy']
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    has_lists = len(lines) < 2 or any(line.endswith(",") for line in lines)
    names = [name for line in lines for name in line.split(",")] if has_lists else lines
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError("You passed no class names. Write two or more, one a line or with commas between them.")
    if most is not None and len(names) > most:
        raise ValueError(f"You passed {len(names):,} class names, where at most {most:,} are taken. Leave some out.")
    return check_class_names(names)
