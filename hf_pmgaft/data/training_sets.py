"""Any set that Trainer users have -> training examples."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset, IterableDataset

from ..prompts import check_class_names, check_readable
from .collator import Collator
from .columns import check_label_column, class_names_or_none, column_names, features_of, label_index
from .rows import ImageRows, check_rows
from .streams import StreamingImages


class ImageClassificationDataset(ImageRows, Dataset):
    """Training examples of a map-style image set, in the form that the trainer takes.

    Rows are `{"pixel_values": [3,H,W], "labels": int, "sample_id": int}`, with pixel values as the processor makes
    them and the row's index as its id; with captions also `input_ids` and `attention_mask` `[C,L]`, and without a
    label column no `labels`. A subset keeps the ids of the whole set. It takes the arguments of [`ImageRows`].

    Example:
        >>> data = ImageClassificationDataset(dataset, processor)
        >>> len(data), sorted(data[5])
        (16, ['labels', 'pixel_values', 'sample_id'])
    """

    # Examples that are kept in memory by row, `None` for a set that keeps none, and the bytes that are left for more.
    cache: dict[int, dict[str, Any]] | None = None
    free_bytes = 0

    @cached_property
    def sample_ids(self) -> Sequence[int]:
        """The rows of the underlying set that are trained on."""
        return range(len(self.dataset))

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.sample_ids[index]
        if self.cache is not None and row in self.cache:
            return dict(self.cache[row])

        example = self.example(self.dataset[row], row)
        example["sample_id"] = row
        if self.cache is not None:
            self._keep(row, example)
        return example

    def cached(self, max_bytes: int) -> ImageClassificationDataset:
        """Gives the same rows, each decoded and resized once and then kept, as far as `max_bytes` of memory reach.

        Every worker process keeps its own: without workers, where it pays most, the memory is taken once.

        Raises:
            ValueError: for less than one byte.

        Example:
            >>> data = ImageClassificationDataset(dataset, processor).cached(2**20)
            >>> data[0]["pixel_values"] is data[0]["pixel_values"]
            True
        """
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise ValueError(f"You passed max_bytes={max_bytes!r}, which keeps nothing. Pass such as 2**30.")
        other = copy.copy(self)
        other.cache = {}
        other.free_bytes = max_bytes
        return other

    def rows(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """Iterates over the rows that are trained on, with their numbers in the underlying set."""
        return ((row, self.dataset[row]) for row in self.sample_ids)

    def _keep(self, row: int, example: dict[str, Any]) -> None:
        """Keeps an example if there is memory left for it."""
        size = sum(value.nbytes for value in example.values() if isinstance(value, torch.Tensor))
        if size <= self.free_bytes:
            self.cache[row] = dict(example)
            self.free_bytes -= size


class ProcessedImages(Dataset):
    """A map-style set of rows that a processor has made, `pixel_values` and `labels`; a row's index is its sample id.

    Args:
        dataset: Rows with `pixel_values`, and with `labels` or `label`.
        processor (`CLIPProcessor`): What made them; pixel values are compared with its statistics.
        class_names (`list[str]`, *optional*): Those of a `ClassLabel`, or the set's own `class_names`, if not given.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know are taken.

    Raises:
        ValueError: for class names that cannot be told apart, and labels outside them.

    Example:
        >>> rows = [{"pixel_values": torch.zeros(3, 16, 16), "labels": label} for label in (1, 3)]
        >>> data = ProcessedImages(rows, processor, class_names)
        >>> data[1]["sample_id"], data[1]["labels"]
        (1, 3)
    """

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        class_names: Sequence[str] | str | None = None,
        accept_any_class_names: bool = False,
    ):
        self.dataset = dataset
        self.processor = processor

        self._label_column = "labels" if "labels" in column_names(dataset) else "label"
        feature = features_of(dataset).get(self._label_column)
        if class_names is not None or isinstance(feature, datasets.ClassLabel):
            class_names = class_names_or_none(dataset, self._label_column, class_names)
        self.class_names = class_names or getattr(dataset, "class_names", None)
        self.class_numbers = None
        if self.class_names is not None:
            self.class_names = check_class_names(self.class_names)
            if not accept_any_class_names:
                check_readable(self.class_names)
            self.class_numbers = {name: number for number, name in enumerate(self.class_names)}
            check_label_column(dataset, self._label_column, self.class_numbers)

    def check(self) -> None:
        """Reads every row, and raises one `ValueError` that names all those that cannot be used."""
        collator = Collator(self.processor, None if self.class_names is None else len(self.class_names))
        check_rows(enumerate(range(len(self))), lambda row, position: collator([self[row]]))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.dataset[index])
        if self.class_numbers is not None and self._label_column in row:
            row[self._label_column] = label_index(row[self._label_column], self.class_numbers, index)
        row.setdefault("sample_id", index)
        return row


# The name that it had before: what it does, not what it holds.
WithSampleId = ProcessedImages


def training_examples(
    dataset: Any,
    processor: Any,
    class_names: Sequence[str] | str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | Sequence[str] | None = None,
    needs_labels: bool = True,
    resize: int | None = None,
    accept_any_class_names: bool = False,
):
    """Makes training examples of any data set that `Trainer` users have.

    Rows with an image column go through the processor. Rows that hold `pixel_values` pass as they are, and training
    examples too.

    Args:
        dataset: A `datasets.Dataset` or stream of the library, a torch data set, or a list of dicts.
        processor (`CLIPProcessor`): The model's.
        class_names (`list[str]` or `str`, *optional*): One per label, or the name of a list of the package, such as
            `"tiny_imagenet"`; what the label column says of them if not given.
        image_column, label_column (`str`, *optional*): The usual names if not given.
        caption_column (`str` or `list[str]`, *optional*): See [`Captions`]; `"auto"` for the usual names. Rows then
            hold `input_ids` and `attention_mask` `[C,L]` of their captions too.
        needs_labels (`bool`): Whether rows without captions need labels. With captions, or with `False`, labels and
            class names are optional, and labels without class names are any numbers from 0.
        resize (`int`, *optional*): Shortest edge, in pixels, before the processor's centre crop, as evaluation sets
            have it; the processor's own if not given.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken
            where labels are needed.

    Returns:
        A set whose rows hold `pixel_values`, `labels` and `sample_id`: [`ImageClassificationDataset`],
        [`StreamingImages`], [`ProcessedImages`], or a stream of `pixel_values` as it came.

    Raises:
        ValueError: for a set that cannot be trained on; the message names the column or the row.

    Example:
        >>> examples = training_examples(dataset, processor)
        >>> examples.class_names
        ['red disc', 'green disc', 'blue square', 'yellow square']
        >>> examples[0]["pixel_values"].shape, examples[0]["labels"]
        (torch.Size([3, 16, 16]), 0)
    """
    # What has been made already
    if isinstance(dataset, (ImageRows, ProcessedImages)):
        if caption_column and isinstance(dataset, ImageRows) and dataset.captions is None:
            raise ValueError(
                f"You passed caption_column={caption_column!r} with a {type(dataset).__name__} that was made without "
                "captions. Pass caption_column when it is made, or the underlying set in its place."
            )
        if resize not in (None, getattr(dataset, "resize", None)):
            _refuse_resize(resize, f"{type(dataset).__name__} examples, whose images have their size")
        return dataset

    # Rows that a processor has made
    columns = column_names(dataset)
    if caption_column and "pixel_values" in columns and "input_ids" not in columns:
        raise ValueError(
            f"You passed caption_column={caption_column!r}, but the rows hold pixel_values and no input_ids, so their "
            f"captions would not be read; they have {columns}. Pass images, or rows with input_ids of the captions."
        )
    is_stream = isinstance(dataset, (IterableDataset, datasets.IterableDataset))
    if "pixel_values" in columns or not columns:
        if resize is not None:
            _refuse_resize(resize, f"rows of {columns or 'a torch stream'}, which are taken as they come")
        takes_any = accept_any_class_names or not needs_labels or bool(caption_column)
        return dataset if is_stream else ProcessedImages(dataset, processor, class_names, takes_any)

    # Images
    kind = StreamingImages if is_stream else ImageClassificationDataset
    return kind(
        dataset,
        processor,
        class_names=class_names,
        image_column=image_column,
        label_column=label_column,
        caption_column=caption_column,
        needs_labels=needs_labels,
        resize=resize,
        accept_any_class_names=accept_any_class_names,
    )


def _refuse_resize(resize: int, data: str) -> None:
    raise ValueError(f"You passed resize={resize} with {data}. Pass images, or leave resize out.")
