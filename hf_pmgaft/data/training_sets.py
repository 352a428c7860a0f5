"""Any set that Trainer users have -> training examples; few-shot subsets of them."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..noise import sample_seeds
from ..prompts import check_class_names
from .collator import Collator
from .columns import check_labels, column_names, label_index, quick_labels
from .rows import LabelledImages, check_rows, content_id


class ImageClassificationDataset(LabelledImages, Dataset):
    """A map-style labelled image set as training examples.

    Rows are `{"pixel_values": [3,H,W], "labels": int, "sample_id": int}`, with pixel values as the processor makes
    them and the row's index as its id; with captions also `input_ids` and `attention_mask` `[C,L]`, and without a
    label column no `labels`. A subset keeps the ids of the whole set.
    """

    kept: dict[int, dict[str, Any]] | None = None
    room = 0

    @cached_property
    def sample_ids(self) -> Sequence[int]:
        """The rows of the underlying set that are trained on."""
        return range(len(self.dataset))

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.sample_ids[index]
        if self.kept is not None and row in self.kept:
            return dict(self.kept[row])
        example = {**self.example(self.dataset[row], row), "sample_id": row}
        size = sum(value.nbytes for value in example.values() if isinstance(value, torch.Tensor))
        if size <= self.room:
            self.kept[row], self.room = dict(example), self.room - size
        return example

    def cached(self, max_bytes: int) -> ImageClassificationDataset:
        """The same rows, each decoded and resized once and then kept, as far as `max_bytes` of memory reach.

        Every worker process keeps its own: without workers, where it pays most, the memory is taken once.

        Raises:
            ValueError: for less than one byte.
        """
        if max_bytes < 1:
            raise ValueError(f"You passed max_bytes={max_bytes}, which keeps nothing. Pass such as 2**30.")
        other = copy.copy(self)
        other.kept, other.room = {}, max_bytes
        return other

    def rows(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """The rows that are trained on, with their numbers in the underlying set."""
        return ((row, self.dataset[row]) for row in self.sample_ids)


def few_shot(data: ImageClassificationDataset, shots: int, seed: int = 0) -> ImageClassificationDataset:
    """A subset with the same number of images of every class.

    The choice within a class follows from the seed, the class's name and its own images in their order: other classes
    do not change it, and fewer shots are among the more. Sample ids, and so the noise of an image, are those of the
    whole set.

    Args:
        data (`ImageClassificationDataset`): What `training_examples` makes of map-style images with labels.
        shots (`int`): Images per class, at least 1.
        seed (`int`): Another one draws other images.

    Raises:
        ValueError: for a class with fewer images, which would otherwise stand in for itself twice or weigh less.
    """
    if shots < 1:
        raise ValueError(f"You passed shots={shots}, which leaves no image of any class. Pass 1 or more.")
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
    rows = _rows_by_label(data)
    names = {label: data.class_names[label] if data.class_names else str(label) for label in rows}
    few = [f"{names[label]!r} ({len(found)})" for label, found in rows.items() if len(found) < shots]
    if few:
        raise ValueError(
            f"You passed shots={shots}, but {len(few)} of the {len(rows)} classes have fewer images: "
            f"{', '.join(few[:5] + ['...'] * (len(few) > 5))}. Pass fewer shots, or a set without these classes."
        )
    chosen = []
    for label, found in rows.items():
        order = sample_seeds(seed, zlib.crc32(names[label].encode()), torch.arange(len(found))).argsort()
        chosen += [found[i] for i in order[:shots].tolist()]
    subset = copy.copy(data)
    subset.sample_ids = sorted(chosen)
    return subset


def _rows_by_label(data: ImageClassificationDataset) -> dict[int, list[int]]:
    """The rows of each class, those of the class list first, be they none."""
    labels = list(quick_labels(data.dataset, data.label_column) or ())
    if len(labels) < len(data.dataset):
        labels = [data.dataset[row][data.label_column] for row in range(len(data.dataset))]
    rows: dict[int, list[int]] = {label: [] for label in range(len(data.class_names or ()))}
    for row in data.sample_ids:
        rows.setdefault(label_index(labels[row], data.index, row), []).append(row)
    return rows


class StreamingImages(LabelledImages, IterableDataset):
    """A streaming labelled image set as training examples; a row's id is a checksum of its pixels."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        stream = "the stream" if worker is None else f"worker {worker.id}'s part of the stream"
        for position, row in enumerate(self.dataset):
            example = self.example(row, f"{position} of {stream}")
            yield {**example, "sample_id": content_id(example["pixel_values"])}

    def set_epoch(self, epoch: int) -> None:
        """Reshuffles the stream, if it shuffles at all."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class WithSampleId(Dataset):
    """A map-style set of processor-made rows (`pixel_values`, `labels`), each with its index as `sample_id`."""

    def __init__(self, dataset: Any, processor: Any, class_names: Sequence[str] | None = None):
        self.dataset, self.processor = dataset, processor
        features = getattr(dataset, "features", None) or {}
        label_column = "labels" if "labels" in column_names(dataset) else "label"
        if class_names is None and isinstance(features.get(label_column), datasets.ClassLabel):
            class_names = features[label_column].names
        self.class_names = class_names or getattr(dataset, "class_names", None)
        if self.class_names is not None:
            self.class_names = check_class_names(self.class_names)
            check_labels(dataset, label_column, {name: i for i, name in enumerate(self.class_names)})

    def check(self) -> None:
        """Reads every row, and raises `ValueError` naming all those that cannot be used."""
        collator = Collator(self.processor, None if self.class_names is None else len(self.class_names))
        check_rows(enumerate(range(len(self))), lambda row, position: collator([self[row]]))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.dataset[index])
        row.setdefault("sample_id", index)
        return row


def training_examples(
    dataset: Any,
    processor: Any,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | Sequence[str] | None = None,
    needs_labels: bool = True,
):
    """Any data set that `Trainer` users have -> one whose rows hold `pixel_values`, `labels` and `sample_id`.

    Processor-made rows pass as they are; rows with an image column go through the processor. With `caption_column`
    (see [`Captions`]; `"auto"` for the usual names) the rows hold `input_ids` and `attention_mask` `[C,L]` of their
    captions too, labels and class names are optional, and without class names labels are any numbers from 0.
    Likewise with `needs_labels=False`.
    """
    if isinstance(dataset, (LabelledImages, WithSampleId)):
        if caption_column and isinstance(dataset, LabelledImages) and dataset.captions is None:
            raise ValueError(
                f"You passed caption_column={caption_column!r} with a {type(dataset).__name__} that was made without "
                "captions. Pass caption_column when it is made, or the underlying set in its place."
            )
        return dataset
    columns = column_names(dataset)
    if caption_column and "pixel_values" in columns and "input_ids" not in columns:
        raise ValueError(
            f"You passed caption_column={caption_column!r}, but the rows hold pixel_values and no input_ids, so their "
            f"captions would not be read; they have {columns}. Pass images, or rows with input_ids of the captions."
        )
    streaming = isinstance(dataset, (IterableDataset, datasets.IterableDataset))
    if "pixel_values" in columns or not columns:
        return dataset if streaming else WithSampleId(dataset, processor, class_names)
    cls = StreamingImages if streaming else ImageClassificationDataset
    options = {"caption_column": caption_column, "needs_labels": needs_labels}
    return cls(dataset, processor, class_names, image_column, label_column, **options)
