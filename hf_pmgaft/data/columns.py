"""Which column of a set is what, and what its labels stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import datasets
from torch.utils.data import IterableDataset

from ..prompts import check_class_names, check_order_of_labels

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "path", "file_name")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")
# Labels that are read by one look into the table. One by one takes 200 times as long.
ROWS_AT_ONCE = 1000
# Folders of splits, which an ImageFolder without folders of classes takes for its classes.
SPLIT_NAMES = {"train", "training", "test", "testing", "eval", "evaluation", "val", "valid", "validation", "dev"}


# ---- Columns ----


def find_column(dataset: Any, name: str | None, usual_names: Sequence[str], kind: str) -> str:
    """Finds the image or label column: the one that was named, or the first of the usual names that the set has.

    Args:
        dataset (`datasets.Dataset` or any set of dicts): The set.
        name (`str`, *optional*): The column that the user named.
        usual_names (`list[str]`): What to look for if the user named none, such as `IMAGE_COLUMNS`.
        kind (`str`): `"image"`, `"label"` or `"mask"`, for the message.

    Raises:
        ValueError: if the set has no such column; the message lists those that it has.

    Example:
        >>> find_column(dataset, None, LABEL_COLUMNS, "label")
        'label'
    """
    columns = column_names(dataset)
    if name:
        if name in columns:
            return name
        raise ValueError(
            f"The data set has no {kind} column {name!r}; it has {columns}. Pass its name as {kind}_column."
        )

    for usual in usual_names:
        if usual in columns:
            return usual
    # Shards of .JPG, tables with capitals.
    capitalised = [column for column in columns if column.lower() in usual_names]
    if len(capitalised) == 1:
        return capitalised[0]
    advice = f"Pass the right one as {kind}_column."
    if kind == "mask":
        advice += " A folder needs images/ and masks/, with files of the same names."
    elif columns == ["image"]:
        advice = (
            "A folder of images needs a folder for each class at one depth, such as train/cat/1.png, or a "
            f"metadata.csv with the columns file_name and {usual_names[0]}."
        )
    raise ValueError(
        f"The data set has none of the usual {kind} columns {list(usual_names)}; it has {columns}. {advice}"
    )


def column_names(dataset: Any) -> list[str]:
    """Lists the columns that a set's rows have. A stream that cannot be read twice is not asked and has none.

    Raises:
        ValueError: for a set without rows, or with rows that are not dicts.

    Example:
        >>> column_names([{"image": "cat.png", "label": "cat"}])
        ['image', 'label']
    """
    check_has_rows(dataset)
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


def check_has_rows(dataset: Any) -> None:
    """Raises `ValueError` for a set without rows; a stream's rows are not counted.

    Example:
        >>> check_has_rows([])
        Traceback (most recent call last):
        ValueError: The data set has no rows, so there is nothing to read. Pass another set or split.
    """
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError("The data set has no rows, so there is nothing to read. Pass another set or split.")


def has_transform(dataset: Any) -> bool:
    """Whether the rows are made by `set_transform` or `with_transform`, whatever the columns below are.

    Example:
        >>> has_transform(dataset), has_transform(dataset.with_transform(dict))
        (False, True)
    """
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom"


def features_of(dataset: Any) -> Mapping[str, Any]:
    """The types of the columns by name, as `datasets` keeps them; empty for a set that has none.

    Example:
        >>> list(features_of(dataset)), features_of([{"label": 0}])
        (['image', 'label'], {})
    """
    return getattr(dataset, "features", None) or {}


# ---- Class names ----


def class_names_of(dataset: Any, label_column: str, class_names: Sequence[str] | str | None = None) -> list[str]:
    """Gives the class names: those that were passed, those of a `ClassLabel`, or the sorted texts of a text column.

    A text such as `"tiny_imagenet"` names a list of the package, with whose labels a `ClassLabel` has to agree.

    Raises:
        ValueError: for a column that names no classes.

    Example:
        >>> class_names_of(dataset, "label")
        ['red disc', 'green disc', 'blue square', 'yellow square']
    """
    names = class_names_or_none(dataset, label_column, class_names)
    if names is None:
        raise ValueError(
            f"Column {label_column!r} of the data set is {features_of(dataset).get(label_column)}, which names no "
            "classes. Pass `class_names`, one name per label in the order of the labels."
        )
    return names


def class_names_or_none(
    dataset: Any, label_column: str, class_names: Sequence[str] | str | None = None
) -> list[str] | None:
    """Gives the class names as `class_names_of` does, and `None` for a column that names no classes.

    Sets whose labels are optional may have such a column.

    Example:
        >>> class_names_or_none(dataset.cast_column("label", datasets.Value("int64")), "label") is None
        True
    """
    feature = features_of(dataset).get(label_column)
    if class_names is not None:
        names = check_class_names(class_names)
        if isinstance(feature, datasets.ClassLabel) and isinstance(class_names, str):
            check_order_of_labels(class_names, feature.names)
        elif isinstance(feature, datasets.ClassLabel):
            _check_order(names, feature.names, label_column)
        return names
    if isinstance(feature, datasets.ClassLabel):
        return check_class_names(feature.names)
    if getattr(feature, "dtype", None) in ("string", "large_string") and isinstance(dataset, datasets.Dataset):
        return check_class_names(sorted(set(dataset.unique(label_column)) - {None, ""}))
    return None


def _check_order(class_names: Sequence[str], names: Sequence[str], label_column: str) -> None:
    """Raises `ValueError` for the names of the labels themselves, or a part of them, in another order than theirs."""
    is_of_the_same = set(class_names) <= set(names) or set(names) <= set(class_names)
    differing = [number for number, pair in enumerate(zip(class_names, names, strict=False)) if pair[0] != pair[1]]
    if is_of_the_same and differing:
        number = differing[0]
        raise ValueError(
            f"You passed class_names in another order than the labels of column {label_column!r}: label {number} is "
            f"{names[number]!r} there and {class_names[number]!r} in yours. Leave class_names out, or pass them in "
            "the order of the labels."
        )


def names_splits(dataset: Any, label_column: str) -> bool:
    """Whether the classes of a column are nothing but splits, as those of an ImageFolder without folders of classes.

    Example:
        >>> names_splits(dataset, "label")
        False
    """
    feature = features_of(dataset).get(label_column)
    if not isinstance(feature, datasets.ClassLabel):
        return False
    # COCO has train2017 and val2017, others test_images or trainset.
    names = [re.sub(r"[\W\d_]|images?|imgs?|set", "", name.lower()) for name in feature.names]
    return SPLIT_NAMES.issuperset(names)


# ---- Labels ----


def place_of(position: int | str, set_name: str | None) -> str:
    """Says in messages which row of which set is meant.

    Example:
        >>> place_of(3, "shapes"), place_of(3, None)
        ("3 of 'shapes'", '3')
    """
    return str(position) if set_name is None else f"{position} of {set_name!r}"


def label_index(value: Any, class_numbers: Mapping[str, int] | None, row: int | str) -> int:
    """Turns the label of a row, a number or a class name, into the number of its class.

    Args:
        value (`int` or `str`): The label as the set has it.
        class_numbers (`dict[str, int]`, *optional*): The number of each class name, if classes have names.
        row (`int` or `str`): Where the label stands, for the message.

    Raises:
        ValueError: for a label that stands for no class.

    Example:
        >>> label_index("dog", {"cat": 0, "dog": 1}, row=3)
        1
        >>> label_index(2, {"cat": 0, "dog": 1}, row=3)
        Traceback (most recent call last):
        ValueError: Row 3 has the label 2, which is not among the 2 classes (0 to 1: cat, dog, ...). ...
    """
    if isinstance(value, str) and value in (class_numbers or ()):
        return class_numbers[value]
    if _is_class_number(value, class_numbers):
        return int(value)

    if class_numbers is None:
        raise ValueError(
            f"Row {row} has the label {value!r:.80}, which is no number of a class. Correct the row, or pass the "
            "names that labels stand for as `class_names`."
        )
    count = len(class_numbers)
    raise ValueError(
        f"Row {row} has the label {value!r:.80}, which is not among the {count} classes (0 to {count - 1}: "
        f"{', '.join(list(class_numbers)[:3])}, ...). Correct the row or pass the full list as `class_names`."
    )


def _is_class_number(value: Any, class_numbers: Mapping[str, int] | None) -> bool:
    """Whether a label is a whole number from 0, below the number of classes if that is known."""
    if isinstance(value, str):
        return False
    try:
        is_whole = int(value) == value >= 0
        return bool(is_whole and (class_numbers is None or value < len(class_numbers)))
    except (TypeError, ValueError, OverflowError, RuntimeError):  # None, lists, NaN, infinity, tensors of several
        return False


def check_label_column(
    dataset: Any, label_column: str, class_numbers: Mapping[str, int], set_name: str | None = None
) -> None:
    """Raises `ValueError` for a label outside the classes, where labels can be read without making the images.

    Example:
        >>> check_label_column([{"label": 0}, {"label": 1}], "label", {"cat": 0, "dog": 1})
        >>> check_label_column([{"label": 0}, {"label": 7}], "label", {"cat": 0, "dog": 1})
        Traceback (most recent call last):
        ValueError: Row 1 has the label 7, which is not among the 2 classes ...
    """
    for row, label in enumerate(quick_labels(dataset, label_column) or ()):
        if not _is_class_number(label, class_numbers):
            label_index(label, class_numbers, place_of(row, set_name))


def quick_labels(dataset: Any, label_column: str) -> Iterable[Any] | None:
    """Reads the labels as they stand in the set, or gives `None` if that would mean making the images too.

    Example:
        >>> list(quick_labels(dataset, "label"))[:5]
        [0, 1, 2, 3, 0]
    """
    if isinstance(dataset, datasets.Dataset) and not has_transform(dataset) and label_column in dataset.column_names:
        labels = dataset.with_format(None).select_columns([label_column])[label_column]
        starts = range(0, len(labels), ROWS_AT_ONCE)
        return chain.from_iterable(labels[start : start + ROWS_AT_ONCE] for start in starts)
    if isinstance(dataset, (list, tuple)):
        return (row[label_column] for row in dataset if label_column in row)
    return None
