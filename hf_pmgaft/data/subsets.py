"""Subsets of labelled images: some classes, numbered anew, or some rows."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from .columns import column_names, quick_labels
from .rows import ImageRows

Images = TypeVar("Images", bound=ImageRows)


def split_classes(
    class_names: Sequence[str], base: Sequence[str] | None = None, new: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Splits classes for training on the base ones and testing on base and new, each among themselves.

    In the order of their labels, the first half of them, rounded up, is base (Zhou et al., CoOp and CoCoOp).

    Args:
        class_names (`list[str]`): In the order of the labels.
        base, new (`list[str]`, *optional*): The classes of each, if not by halves; what one leaves is the other's.

    Raises:
        ValueError: for a class that is base and new, one that the set has not, and fewer than two on one side.

    Example:
        >>> split_classes(["red disc", "green disc", "blue square", "yellow square"])
        (['red disc', 'green disc'], ['blue square', 'yellow square'])
    """
    if base is None and new is None:
        base = class_names[: -(-len(class_names) // 2)]
    if base is None:
        base = [name for name in class_names if name not in set(new)]
    if new is None:
        new = [name for name in class_names if name not in set(base)]

    unknown = sorted({*base, *new} - set(class_names))
    if unknown:
        raise ValueError(f"You passed classes that the set has not: {_listed(unknown)}. Pass names of its own.")
    both = sorted(set(base) & set(new))
    if both:
        raise ValueError(
            f"You passed {_listed(both)} as base and as new, so that new classes would be trained on. Pass each once."
        )
    for side, names in (("base", base), ("new", new)):
        if len(names) < 2:
            raise ValueError(
                f"You passed {len(class_names)} classes with {len(names)} of them {side}, where there is nothing to "
                "tell apart. Pass a set with two classes on either side."
            )
    return [name for name in class_names if name in set(base)], [name for name in class_names if name in set(new)]


def keep_classes(data: Images, names: Sequence[str]) -> Images:
    """Keeps the rows of some classes, which are numbered from 0 in the order of the set.

    Sample ids, and so the noise of an image, are those of the whole set.

    Args:
        data ([`ImageClassificationDataset`] or [`ZeroShotDataset`]): Map-style images with labels.
        names (`list[str]`): Classes of the set.

    Raises:
        ValueError: for a class that the set has not, or no row of, and for data without classes.

    Example:
        >>> from hf_pmgaft.data import training_examples
        >>> squares = keep_classes(training_examples(dataset, processor), ["blue square", "yellow square"])
        >>> squares.class_names, [example["labels"] for example in squares][:4], list(squares.sample_ids)[:4]
        (['blue square', 'yellow square'], [0, 1, 0, 1], [2, 3, 6, 7])
    """
    if getattr(data, "class_names", None) is None or not hasattr(data.dataset, "__len__"):
        raise ValueError(
            f"You passed a {type(data).__name__} without class names or without numbered rows, of which no classes "
            "can be kept. Pass images with labels, and load them without streaming."
        )
    unknown = sorted(set(names) - set(data.class_names))
    if unknown:
        raise ValueError(f"You passed classes that the set has not: {_listed(unknown)}. Pass names of its own.")

    kept = [number for number, name in enumerate(data.class_names) if name in set(names)]
    before = data.kept_numbers or {number: number for number in range(len(data.class_names))}
    subset = copy.copy(data)
    subset.class_names = [data.class_names[number] for number in kept]
    subset.kept_numbers = {there: kept.index(number) for there, number in before.items() if number in kept}

    labels = labels_of(data)
    rows = [row for row in _rows_of(data) if data.label(labels[row], row) in kept]
    return _with_rows(subset, rows, f"of the classes {_listed(subset.class_names)}")


def keep_rows(data: Images, column: str, values: Collection[str]) -> Images:
    """Keeps the rows whose cell in a column is one of some values, as a text.

    Sample ids are those of the whole set, and the classes too.

    Args:
        data ([`ImageClassificationDataset`] or [`ZeroShotDataset`]): Map-style images.
        column (`str`): Such as `"style"`.
        values (`list[str]`): Such as `["noto", "emojione"]`.

    Raises:
        ValueError: for a column that the set has not, or a value that no row has.

    Example:
        >>> from hf_pmgaft.data import training_examples
        >>> list(keep_rows(training_examples(dataset, processor), "label", ["3"]).sample_ids)
        [3, 7, 11, 15]
    """
    if column not in column_names(data.dataset):
        raise ValueError(
            f"You passed rows by their {column!r}, a column that the set has not. It has {column_names(data.dataset)}."
        )
    cells = [str(cell) for cell in _column(data.dataset, column)]
    rows = _rows_of(data)
    missing = sorted(set(values) - {cells[row] for row in rows})
    if missing:
        there = sorted({cells[row] for row in rows})
        raise ValueError(
            f"You passed rows whose {column!r} is {_listed(missing)}, and there are none. It is {_listed(there)}."
        )
    return _with_rows(copy.copy(data), [row for row in rows if cells[row] in values], f"with such a {column!r}")


def labels_of(data: ImageRows) -> list[Any]:
    """The labels of all rows of the underlying set, as it has them.

    Example:
        >>> labels_of(ImageRows(dataset, processor))[:5]
        [0, 1, 2, 3, 0]
    """
    return _column(data.dataset, data.label_column)


def images_of_classes(data: ImageRows) -> list[int]:
    """How many rows each class has, in the order of the class names.

    Example:
        >>> from hf_pmgaft.data import training_examples
        >>> images_of_classes(training_examples(dataset, processor))
        [4, 4, 4, 4]
    """
    labels = labels_of(data)
    counts = [0] * len(data.class_names)
    for row in _rows_of(data):
        counts[data.label(labels[row], row)] += 1
    return counts


def _column(dataset: Any, column: str) -> list[Any]:
    cells = list(quick_labels(dataset, column) or ())
    if len(cells) < len(dataset):
        cells = [dataset[row][column] for row in range(len(dataset))]
    return cells


def _rows_of(data: ImageRows) -> Sequence[int]:
    """The rows that are read: of an evaluation set that names none, all."""
    rows = getattr(data, "sample_ids", None)
    return range(len(data.dataset)) if rows is None else rows


def _with_rows(subset: Images, rows: list[int], which: str) -> Images:
    if not rows:
        raise ValueError(f"The set has no rows {which}, so nothing is left of it. Pass others.")
    subset.sample_ids = rows
    return subset


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
