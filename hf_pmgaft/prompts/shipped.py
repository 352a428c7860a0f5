"""Lists of class names that come with the package, and what the sets themselves call these classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

from .files import read_lines, read_names
from .names import prompt_name

FOLDER = Path(__file__).parents[1] / "suites"


def shipped_lists() -> list[str]:
    """Lists the sets whose class names come with the package.

    Example:
        >>> shipped_lists()[:3]
        ['ade20k', 'caltech101', 'caltech256']
    """
    return sorted(file.stem for file in (FOLDER / "class_names").glob("*.txt"))


def shipped_class_names(name: str) -> list[str]:
    """Gives the class names of a set that comes with the package, in the order of its labels.

    Raises:
        ValueError: for a set of which there is no list.

    Example:
        >>> shipped_class_names("tiny_imagenet")[0], len(shipped_class_names("imagenet"))
        ('goldfish', 1000)
    """
    if name not in shipped_lists():
        raise ValueError(f"The package has no class names of {name!r}. It has those of {', '.join(shipped_lists())}.")
    return read_names(FOLDER / "class_names" / f"{name}.txt")


def names_from(text: str | os.PathLike) -> list[str] | str:
    """Reads class names from a file, and leaves the name of a list in the package, which is read where it is used.

    Raises:
        ValueError: for neither, and for a file that holds no names.

    Example:
        >>> names_from("cifar10")
        'cifar10'
    """
    if Path(text).is_file():
        return read_names(text)
    if str(text) in shipped_lists():
        return str(text)
    raise ValueError(
        f"You passed the class names {str(text)!r}, but there is no such file, nor such a list in the package. "
        f"Correct the place of the file, or name one of {', '.join(shipped_lists())}."
    )


def set_with_labels(labels: Sequence[str]) -> str | None:
    """Names the set whose own labels these are, in their order, if its class names come with the package.

    Example:
        >>> set_with_labels([str(number) for number in range(10)]) is None
        True
    """
    texts = [prompt_name(label) for label in labels]
    for name in shipped_lists():
        if [prompt_name(label) for label in _labels(name)] == texts:
            return name
    return None


def check_order_of_labels(name: str, labels: Sequence[str]) -> None:
    """Raises `ValueError` where a set's own labels are not those of a list in the package, in its order.

    Args:
        name (`str`): The set in the package.
        labels (`list[str]`): What the `ClassLabel` of the user's set lists.

    Example:
        >>> check_order_of_labels("cifar10", ["bird", "cat"])
        Traceback (most recent call last):
        ValueError: Label 0 of the set is 'bird', but the list of cifar10 has 'airplane' there, ...
    """
    known = zip_longest(labels, shipped_class_names(name), _labels(name))
    for number, (label, class_name, its_label) in enumerate(known):
        # A line of labels may hold several, of which one is the set's.
        right = {prompt_name(text) for text in (class_name or "", its_label or "", *(its_label or "").split("; "))}
        if label is None or class_name is None or prompt_name(label) not in right:
            raise ValueError(
                f"Label {number} of the set is {label!r:.60}, but the list of {name} has {class_name!r:.60} there, so "
                "images would be compared with the wrong names. Pass a file with the names in the order of the set's "
                "labels as `class_names`."
            )


@cache
def _labels(name: str) -> list[str]:
    """What a set calls its labels, the class names where it calls them so."""
    file = FOLDER / "labels" / f"{name}.txt"
    return read_lines(file) if file.is_file() else shipped_class_names(name)
