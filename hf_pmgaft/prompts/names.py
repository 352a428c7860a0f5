"""Names in the order of labels, and how one of them stands in a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any


def names_in_order(class_names: Any) -> list[Any]:
    """Gives a list of names as a list, and the values of an `id2label` in the order of its numbers.

    Raises:
        ValueError: for what has no order, or is no list of names at all.

    Example:
        >>> names_in_order({0: "tree frog", 1: "toad"})
        ['tree frog', 'toad']
    """
    if isinstance(class_names, (str, bytes)):
        raise ValueError(
            f"You passed the text {class_names!r:.80} as class names. Pass a list with one name per class."
        )
    if isinstance(class_names, Mapping):
        return _names_of_id2label(class_names)
    if isinstance(class_names, Set) or not isinstance(class_names, Iterable):
        raise ValueError(
            f"You passed {class_names!r:.80} as class names, a {type(class_names).__name__}, which says nothing of "
            "the order of labels. Pass a list with one name per label, in the order of the labels."
        )
    return list(class_names)


def prompt_name(name: str) -> str:
    """Writes a class name as it stands in a prompt: lower case; `_`, `-` and `/` become spaces.

    Example:
        >>> prompt_name("Tree_Frog")
        'tree frog'
    """
    return " ".join(name.lower().translate(str.maketrans("_-/", "   ")).split())


def _names_of_id2label(id2label: Mapping[Any, Any]) -> list[Any]:
    """The names of a dict whose keys are 0 to K-1, as numbers or, as JSON has them, as digits."""
    numbers = {str(key): name for key, name in id2label.items()}
    order = [str(number) for number in range(len(id2label))]
    if sorted(numbers) != sorted(order):
        raise ValueError(
            f"You passed a dict of {len(id2label)} class names with the keys {str(list(id2label)[:4]):.80}, which are "
            f"not the labels 0 to {len(id2label) - 1}. Pass a list with one name per label, in the order of the "
            "labels, or such a dict as a model's `id2label`."
        )
    return [numbers[number] for number in order]
