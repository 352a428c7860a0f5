"""Which column of a set is what, and what its labels stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
from torch.utils.data import IterableDataset

from ..prompts import check_class_names

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "path", "file_name")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")


def find_column(dataset: Any, given: str | None, usual: Sequence[str], kind: str) -> str:
    """The name of the image or label column: the given one, or the first of the usual ones that the set has."""
    columns = column_names(dataset)
    wanted = [given] if given else list(usual)
    for column in wanted:
        if column in columns:
            return column
    raise ValueError(
        f"The data set has no {kind} column {given!r}; it has {columns}. Pass its name as {kind}_column."
        if given
        else f"The data set has none of the usual {kind} columns {wanted}; it has {columns}. "
        f"Pass the right one as {kind}_column."
    )


def column_names(dataset: Any) -> list[str]:
    """The columns that a set's rows have; none for a stream that cannot be read twice."""
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError("The data set has no rows, so there is nothing to read. Pass another set or split.")
    names = getattr(dataset, "column_names", None)
    if names and not has_transform(dataset):
        return list(names)
    if isinstance(dataset, IterableDataset) and not isinstance(dataset, datasets.IterableDataset):
        return []
    row = next(iter(dataset)) if isinstance(dataset, datasets.IterableDataset) else dataset[0]
    if not isinstance(row, dict):
        raise ValueError(
            f"The data set's rows are {type(row).__name__}, in which no image or label can be told apart. Pass rows "
            "that are dicts of named columns."
        )
    return list(row)


def has_transform(dataset: Any) -> bool:
    """Whether the rows are made by `set_transform` or `with_transform`, whatever the columns below."""
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"


def class_names_of(dataset: Any, label_column: str, given: Sequence[str] | None = None) -> list[str]:
    """The class names: the given ones, those of a `ClassLabel`, or the sorted texts of a text column."""
    names = class_names_or_none(dataset, label_column, given)
    if names is None:
        feature = (getattr(dataset, "features", None) or {}).get(label_column)
        raise ValueError(
            f"Column {label_column!r} of the data set is {feature}, which names no classes. Pass `class_names`, one "
            "name per label in the order of the labels."
        )
    return names


def class_names_or_none(dataset: Any, label_column: str, given: Sequence[str] | None = None) -> list[str] | None:
    """As `class_names_of`, and `None` for a column that names no classes, which images with captions may have."""
    if given is not None:
        return check_class_names(given)
    feature = (getattr(dataset, "features", None) or {}).get(label_column)
    if isinstance(feature, datasets.ClassLabel):
        return check_class_names(feature.names)
    if getattr(feature, "dtype", None) in ("string", "large_string") and isinstance(dataset, datasets.Dataset):
        return check_class_names(sorted(set(dataset.unique(label_column)) - {None}))
    return None


def label_index(value: Any, index: Mapping[str, int] | None, row: int | str) -> int:
    """The label of a row, a number or a class name, as a number; `index` numbers the class names, if there are any."""
    if isinstance(value, str) and value in (index or ()):
        return index[value]
    try:
        valid = not isinstance(value, str) and int(value) == value >= 0 and (index is None or value < len(index))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        valid = False
    if not valid and index is None:
        raise ValueError(
            f"Row {row} has the label {value!r}, which is no number of a class. Correct the row, or pass the names "
            "that labels stand for as `class_names`."
        )
    if not valid:
        raise ValueError(
            f"Row {row} has the label {value!r}, which is not among the {len(index)} classes (0 to {len(index) - 1}: "
            f"{', '.join(list(index)[:3])}, ...). Correct the row or pass the full list as `class_names`."
        )
    return int(value)


def check_labels(dataset: Any, label_column: str, index: Mapping[str, int]) -> None:
    """Raises `ValueError` for a label outside the classes, where labels can be read without making the images."""
    for row, label in enumerate(quick_labels(dataset, label_column) or ()):
        label_index(label, index, row)


def quick_labels(dataset: Any, label_column: str) -> Iterable[Any] | None:
    """The labels as they stand in the set, `None` if they cannot be read without making the images."""
    if isinstance(dataset, datasets.Dataset) and not has_transform(dataset) and label_column in dataset.column_names:
        return dataset.with_format(None).select_columns([label_column])[label_column]
    if isinstance(dataset, (list, tuple)):
        return (row[label_column] for row in dataset if label_column in row)
    return None
