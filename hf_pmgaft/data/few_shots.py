"""Few-shot subsets: so many images of every class."""

from __future__ import annotations

import copy
import zlib
from typing import Any

import torch

from ..noise import sample_seeds
from .subsets import labels_of
from .training_sets import ImageClassificationDataset


def few_shot(data: ImageClassificationDataset, shots: int, seed: int = 0) -> ImageClassificationDataset:
    """Draws a subset with the same number of images of every class.

    The choice within a class follows from the seed, the class's name and its own images in their order: other classes
    do not change it, and fewer shots are among the more. Sample ids, and so the noise of an image, are those of the
    whole set.

    Args:
        data (`ImageClassificationDataset`): What `training_examples` makes of map-style images with labels.
        shots (`int`): Images per class, at least 1.
        seed (`int`): Another one draws other images.

    Raises:
        ValueError: for a class with fewer images, which would otherwise stand in for itself twice or weigh less.

    Example:
        >>> from hf_pmgaft.data import training_examples
        >>> few = few_shot(training_examples(dataset, processor), shots=2)
        >>> sorted(example["labels"] for example in few)
        [0, 0, 1, 1, 2, 2, 3, 3]
    """
    _check_shots(data, shots)
    rows_by_label = _rows_by_label(data)
    names = {label: data.class_names[label] if data.class_names else str(label) for label in rows_by_label}

    short = [f"{names[label]!r} ({len(rows)})" for label, rows in rows_by_label.items() if len(rows) < shots]
    if short:
        listed = ", ".join(short[:5])
        if len(short) > 5:
            listed += ", ..."
        raise ValueError(
            f"You passed shots={shots}, but {len(short)} of the {len(rows_by_label)} classes have fewer images: "
            f"{listed}. Pass fewer shots, or a set without these classes."
        )

    chosen = []
    for label, rows in rows_by_label.items():
        class_id = zlib.crc32(names[label].encode())
        order = sample_seeds(seed, class_id, torch.arange(len(rows))).argsort()
        chosen += [rows[place] for place in order[:shots].tolist()]

    subset = copy.copy(data)
    subset.sample_ids = sorted(chosen)
    return subset


def _check_shots(data: Any, shots: int) -> None:
    """Raises `ValueError` for data of which no images per class can be drawn."""
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise ValueError(f"You passed shots={shots!r}, which leaves no image of any class. Pass 1 or more.")
    if not isinstance(data, ImageClassificationDataset):
        raise ValueError(
            f"You passed shots={shots} with a {type(data).__name__}, but images of a class can be drawn only where "
            "all labels are there to read. Pass images with labels, and load them without streaming."
        )
    if data.label_column is None:
        raise ValueError(
            f"You passed shots={shots}, but the data set has no label column, so there are no classes to draw from. "
            "Pass its name as label_column, or leave shots out."
        )


def _rows_by_label(data: ImageClassificationDataset) -> dict[int, list[int]]:
    """Row numbers by label. Every class of the list has an entry, even if no row carries it."""
    labels = labels_of(data)
    rows_by_label: dict[int, list[int]] = {label: [] for label in range(len(data.class_names or ()))}
    for row in data.sample_ids:
        rows_by_label.setdefault(data.label(labels[row], row), []).append(row)
    return rows_by_label
