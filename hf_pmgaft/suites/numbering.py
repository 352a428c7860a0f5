"""Labels as a set writes them -> numbers of the classes that its suite lists.

An *entry* is what a suite says of one set: a dict of the fields in `suite.FIELDS`, with its lists read.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import datasets

from ..data.columns import LABEL_COLUMNS, find_column, quick_labels
from ..prompts import prompt_name


def kept_class_names(entry: Mapping[str, Any]) -> list[str]:
    """Lists the class names that are evaluated: all but those of dropped classes."""
    dropped = entry.get("drop_classes", [])
    return [name for name in entry["class_names"] if name not in dropped]


def classes_by_label(name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Gives the class name of each label that a set may use. A line of `labels` holds several, joined by `; `.

    Raises:
        ValueError: for a label that stands for two classes.

    Example:
        >>> entry = {"class_names": ["disc", "square"], "labels": ["Red_disc; blue disc", "blue square"]}
        >>> classes_by_label("shapes", entry)
        {'red disc': 'disc', 'blue disc': 'disc', 'blue square': 'square'}
    """
    lines = entry.get("labels", entry["class_names"])
    classes: dict[str, str] = {}
    for class_name, line in zip(entry["class_names"], lines, strict=True):
        for label in line.split("; "):
            first = classes.setdefault(prompt_name(label), class_name)
            if first != class_name:
                raise ValueError(
                    f"Set {name!r} looks labels up by name, but {label!r} stands for both {first!r} and "
                    f"{class_name!r}. Let each label stand in one line of `labels`."
                )
    return classes


def label_column_of(entry: Mapping[str, Any], images: datasets.Dataset) -> str:
    """Finds the label column: the one that the suite states, or the first of the usual names."""
    column = entry.get("label_column")
    if entry.get("by_name") and column not in images.column_names:
        column = None  # an ImageFolder of one's own has a `label` in place of the column that the Hub's copy has
    return find_column(images, column, LABEL_COLUMNS, "label")


def number_labels(name: str, entry: Mapping[str, Any], images: datasets.Dataset) -> datasets.Dataset:
    """Numbers labels from 0 over the classes that are kept, and leaves the images of other classes out.

    With `by_name` the set's own names decide. Otherwise the order of its labels must be the stored one, which is
    checked wherever labels have names.

    Raises:
        ValueError: for labels in another order, labels outside the classes, and names of which the suite knows none.
    """
    column = label_column_of(entry, images)
    feature = images.features[column]
    is_class_label = isinstance(feature, datasets.ClassLabel)
    is_text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")

    is_by_name = bool(entry.get("by_name")) and (is_class_label or is_text)
    if isinstance(images, datasets.IterableDataset) and (
        is_by_name or entry.get("first_label") or entry.get("drop_classes")
    ):
        raise ValueError(
            f"You passed {name!r} as a stream, but its labels are numbered anew, for which all of them must be there. "
            "Load it without streaming."
        )
    if is_by_name:
        return _number_by_name(name, entry, images, column)
    if is_class_label:
        _check_order(name, entry, feature)
    return _number_by_order(name, entry, images, column)


def _number_by_name(name: str, entry: Mapping[str, Any], images: datasets.Dataset, column: str) -> datasets.Dataset:
    """Labels numbered by what the set calls them."""
    # What the set calls its labels
    labels = list(quick_labels(images, column))
    feature = images.features[column]
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        labels = [names[label] for label in labels]
    else:
        labels = [_without_path(label) for label in labels]
        names = sorted(set(labels))

    # Which class that is
    classes = classes_by_label(name, entry)
    numbers = {class_name: number for number, class_name in enumerate(kept_class_names(entry))}
    number_of = {text: numbers.get(classes.get(prompt_name(text))) for text in names}
    if all(number_of[label] is None for label in labels):
        raise ValueError(
            f"{name!r} calls its labels {names[:3]}, and none of its images is of a stored class: "
            f"{list(classes)[:3]}. Load the set that the suite names, or state `labels` as it calls them in a suite "
            "of your own."
        )
    return _with_numbers(images, column, [number_of[label] for label in labels])


def _without_path(label: str) -> str:
    """The class that a text names: of a path, as the key of a webdataset, its last folder."""
    return label.split("/")[-2] if "/" in label else label


def _check_order(name: str, entry: Mapping[str, Any], feature: datasets.ClassLabel) -> None:
    """Raises `ValueError` where the names of a `ClassLabel` are not the stored ones, in the stored order."""
    stored_names = entry.get("labels", entry["class_names"])
    for label, (name_there, stored) in enumerate(zip_longest(feature.names, stored_names)):
        if name_there is None or stored is None or prompt_name(name_there) != prompt_name(stored):
            raise ValueError(
                f"Label {label} of {name!r} is {name_there!r}, but {stored!r} in the stored list, so predictions "
                "would be compared with the wrong names. Load the set that the suite names, or state `labels` in its "
                "order in a suite of your own."
            )


def _number_by_order(name: str, entry: Mapping[str, Any], images: datasets.Dataset, column: str) -> datasets.Dataset:
    """Labels counted from 0 instead of the set's first label, and without the dropped classes."""
    first = entry.get("first_label", 0)
    kept = kept_class_names(entry)
    if first == 0 and len(kept) == len(entry["class_names"]):
        return images

    numbers = {class_name: number for number, class_name in enumerate(kept)}
    number_of = {first + i: numbers.get(class_name) for i, class_name in enumerate(entry["class_names"])}
    labels = list(quick_labels(images, column))
    outside = sorted(set(labels) - set(number_of), key=str)
    if outside:
        raise ValueError(
            f"{name!r} has the labels {outside[:5]}, outside {min(number_of)} to {max(number_of)} for its "
            f"{len(number_of)} class names. Correct `first_label` or `class_names` in a suite of your own."
        )
    return _with_numbers(images, column, [number_of[label] for label in labels])


def _with_numbers(images: datasets.Dataset, column: str, numbers: list[int | None]) -> datasets.Dataset:
    """The images with other labels, without those that have none."""
    rows = [row for row, number in enumerate(numbers) if number is not None]
    return images.remove_columns(column).add_column(column, numbers).select(rows)
