"""Sets that are evaluated: images with class names, and images with captions."""

from __future__ import annotations

import json
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset

from ..models.processors import image_edges
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_prompt_templates
from .columns import has_transform, place_of
from .rows import ImageRows


class EvaluationImages(ImageRows, Dataset):
    """Images in [0,1] at the size at which they are attacked, with the templates of the texts they are judged by.

    This is what evaluation sets have in common; see [`ZeroShotDataset`] and [`RetrievalDataset`]. The size is the
    model's, after the processor's resize and crop, or the images' own with `native_size=True`.

    Args:
        dataset (`datasets.Dataset`): Rows with an image; no stream.
        processor (`CLIPProcessor`): Resizes and crops.
        prompt_templates (`str` or `list[str]`): Each with one `{}`.
        name (`str`): How the set is called in tables and reports.
        native_size (`bool`): Attack the images at their own size; they must all have the same.
        resize (`int`, *optional*): Shortest edge, in pixels, before the processor's centre crop; the processor's own
            if not given.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated; all if not given.
        columns: Class names, columns and border, as [`ImageRows`] takes them.

    Raises:
        ValueError: for a stream, a resize that does not lead to the model's size, and rows outside the set.

    Example:
        >>> data = EvaluationImages(
        ...     dataset, processor, "a {}", name="shapes", native_size=True, resize=None, sample_ids=[6, 1]
        ... )
        >>> data.shape, len(data), data.sample_ids
        (torch.Size([3, 20, 20]), 16, [6, 1])
    """

    source: dict[str, Any] | None = None  # where it was read from, which reports record
    is_counted = False  # whether reports state the number of rows, where it was not known before

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        prompt_templates: str | Sequence[str],
        name: str,
        native_size: bool,
        resize: int | None,
        sample_ids: Sequence[int] | None,
        **columns: Any,
    ):
        if not hasattr(dataset, "__len__"):
            raise ValueError(
                f"The evaluation set {name!r} is a stream, whose rows have no numbers to draw and report them by. "
                "Load it without streaming."
            )
        self.name = name
        super().__init__(
            dataset,
            processor,
            normalize=False,
            native_size=native_size,
            resize=resize,
            **columns,
        )
        self.prompt_templates = check_prompt_templates(prompt_templates)
        self.native_size = native_size
        self.sample_ids = None
        if sample_ids is not None:
            self.sample_ids = check_sample_ids(sample_ids, len(dataset), name)

    def __len__(self) -> int:
        return len(self.dataset)

    def rows(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """Iterates over the rows that are evaluated, with their numbers."""
        rows = range(len(self)) if self.sample_ids is None else self.sample_ids
        return ((row, self.dataset[row]) for row in rows)

    def image(self, pixels: torch.Tensor, index: int) -> torch.Tensor:
        """Gives the pixels of a row in [0,1], `[3,H,W]`.

        Raises:
            ValueError: if they are of another size than the first row's.
        """
        if pixels.shape != self.shape:
            raise ValueError(
                f"The image in row {index} of {self.name!r} is {list(pixels.shape)}, that in row {self._first} "
                f"{list(self.shape)}; images of several sizes make no batch. Leave native_size off, or use a "
                "processor that crops."
            )
        return pixels.clamp(0, 1)

    @cached_property
    def shape(self) -> torch.Size:
        """`[3,H,W]` of every image: what the processor makes, or else that of the first image that is evaluated."""
        edges = None if self.native_size else image_edges(self.processor)
        if edges is not None:
            return torch.Size([3, *edges])
        return self.pixels(self.dataset[self._first][self.image_column], self._first).shape

    @property
    def _first(self) -> int:
        return self.sample_ids[0] if self.sample_ids else 0


class ZeroShotDataset(EvaluationImages):
    """An evaluation set of labelled images that carries its own class names and prompt templates.

    Rows are `{"images": [3,H,W] in [0,1], "labels": int, "sample_id": int}`, at the size at which they are attacked:
    the model's, after the processor's resize and crop, or their own with `native_size=True`.

    Args:
        dataset (`datasets.Dataset`): Rows with an image and a label column.
        processor (`CLIPProcessor`): Resizes and crops.
        class_names (`list[str]` or `str`, *optional*): One per label, or the name of a list of the package, such as
            `"tiny_imagenet"`; those of the label column's `ClassLabel` if not given.
        prompt_templates (`str` or `list[str]`): Each with one `{}`.
        name (`str`): How the set is called in tables and reports.
        image_column, label_column (`str`, *optional*): The usual names if not given.
        native_size (`bool`): Attack the images at their own size; they must all have the same.
        resize (`int`, *optional*): Shortest edge, in pixels, before the processor's centre crop; the processor's own
            if not given.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated; all if not given. They are indices of
            `dataset`, and so of this set too, whose length stays that of `dataset`.
        border (`int`): Pixels that are cut off at each edge before anything else.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken.

    Raises:
        ValueError: for columns that are missing, class names that mean nothing to a text tower, labels outside the
            classes, and sizes that make no batch.

    Example:
        >>> data = ZeroShotDataset(dataset, processor, prompt_templates="a photo of the {}", name="shapes")
        >>> data[2]["images"].shape, data.class_names[data[2]["labels"]]
        (torch.Size([3, 16, 16]), 'blue square')
    """

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        class_names: Sequence[str] | str | None = None,
        prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
        name: str = "set",
        image_column: str | None = None,
        label_column: str | None = None,
        native_size: bool = False,
        resize: int | None = None,
        sample_ids: Sequence[int] | None = None,
        border: int = 0,
        accept_any_class_names: bool = False,
    ):
        if not isinstance(border, int) or border < 0:
            raise ValueError(f"You passed border={border!r}, which is no number of pixels. Pass 0 or more.")
        super().__init__(
            dataset,
            processor,
            prompt_templates=prompt_templates,
            name=name,
            native_size=native_size,
            resize=resize,
            sample_ids=sample_ids,
            class_names=class_names,
            image_column=image_column,
            label_column=label_column,
            border=border,
            accept_any_class_names=accept_any_class_names,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.example(self.dataset[index], index)
        images = self.image(example["pixel_values"], index)
        return {"images": images, "labels": example["labels"], "sample_id": index}


class RetrievalDataset(EvaluationImages):
    """An image-caption set whose images and captions are retrieved by each other.

    Rows are `{"images": [3,H,W] in [0,1], "captions": list of texts, "sample_id": int}`. The gallery is what is
    evaluated: `sample_ids`, or `max_samples` of them, and their captions.

    Args:
        dataset (`datasets.Dataset`): Rows with an image and one or several captions.
        processor (`CLIPProcessor`): Resizes and crops; its tokenizer cuts captions to its `model_max_length`.
        caption_column (`str` or `list[str]`): As [`Captions`] takes it: one or several columns of texts or of lists
            of texts, or `"auto"` for the usual names.
        prompt_templates (`str` or `list[str]`): Each with one `{}`, which a caption takes to the letter.
        name (`str`): How the set is called in tables and reports.
        image_column (`str`, *optional*): The usual names if not given.
        native_size (`bool`), resize (`int`, *optional*), sample_ids (`list[int]`, *optional*): See
            [`ZeroShotDataset`].
        target (`str`, *optional*): The threat is then a pull to this caption of the gallery, and the images that have
            it are no queries; `"drawn"` draws for each image one that is not its own, by the seed and its row.
            If not given, all images are attacked away from their own captions; see `THREATS`.

    Raises:
        ValueError: for columns that hold no captions.

    Example:
        >>> captioned = dataset.add_column("caption", [["the red disc", "a disc"]] * len(dataset))
        >>> data = RetrievalDataset(captioned, processor, name="shapes")
        >>> data[3]["captions"]
        ['the red disc', 'a disc']
    """

    label_columns = ()

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        caption_column: str | Sequence[str] = "auto",
        prompt_templates: str | Sequence[str] = "{}",
        name: str = "set",
        image_column: str | None = None,
        native_size: bool = False,
        resize: int | None = None,
        sample_ids: Sequence[int] | None = None,
        target: str | None = None,
    ):
        if not caption_column:
            raise ValueError(f"You passed no caption_column for {name!r}, so there is nothing to retrieve. Pass it.")
        super().__init__(
            dataset,
            processor,
            prompt_templates=prompt_templates,
            name=name,
            native_size=native_size,
            resize=resize,
            sample_ids=sample_ids,
            image_column=image_column,
            caption_column=caption_column,
            needs_labels=False,
        )
        self.target = target

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.dataset[index]
        pixels = self.pixels(row[self.image_column], index)
        return {
            "images": self.image(pixels, index),
            "captions": self.captions.texts(row, place_of(index, self.name)),
            "sample_id": index,
        }

    def texts(self, rows: Sequence[int]) -> dict[int, list[str]]:
        """Gives the different captions of some rows, by row, without a look at their images.

        Raises:
            ValueError: for a row without any.
        """
        table = self.dataset
        if isinstance(table, datasets.Dataset) and not has_transform(table):
            columns = {path[0] for path in self.captions.paths.values()}
            table = table.with_format(None).select_columns(list(columns))
        texts = {row: self.captions.texts(table[row], place_of(row, self.name)) for row in rows}
        return {row: list(dict.fromkeys(captions)) for row, captions in texts.items()}


def check_sample_ids(sample_ids: Sequence[int], size: int, name: str) -> list[int]:
    """Gives the rows as a list.

    Args:
        sample_ids (`list[int]`): The rows that are to be evaluated.
        size (`int`): How many rows the set has.
        name (`str`): What the set is called, for messages.

    Raises:
        ValueError: if there is none, or if one is no integer, lies outside the set or stands twice.

    Example:
        >>> check_sample_ids((6, 1), size=8, name="shapes")
        [6, 1]
    """
    if isinstance(sample_ids, (str, Mapping)) or not isinstance(sample_ids, Iterable):
        raise ValueError(f"You passed {sample_ids!r} as sample ids of {name!r}. Pass a list of row numbers.")
    ids = list(sample_ids)
    not_whole = [i for i in ids if isinstance(i, bool) or not isinstance(i, numbers.Integral)]
    if not_whole:
        raise ValueError(
            f"You passed the sample ids {not_whole[:5]} for {name!r}, which are no row numbers. Pass integers."
        )

    ids = [int(i) for i in ids]
    outside = [i for i in ids if not 0 <= i < size]
    if outside or not ids:
        raise ValueError(
            f"You passed the sample ids {outside[:5]} for {name!r}, which has the rows 0 to {size - 1}. Pass at least "
            "one, and only rows of this set."
        )
    if len(set(ids)) < len(ids):
        repeated = [i for i, count in Counter(ids).items() if count > 1]
        raise ValueError(f"You passed the sample ids {repeated[:5]} of {name!r} more than once. Pass each row once.")
    return ids


def read_sample_ids(file: str | PathLike) -> dict[str, list[int]]:
    """Reads which rows of each set are evaluated, from a JSON file `{"set": [row, ...]}`.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for a file of something else.

    Example:
        >>> size = Path("rows.json").write_text('{"food": [6, 1]}')
        >>> read_sample_ids("rows.json")
        {'food': [6, 1]}
    """
    try:
        rows = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(
            f'You passed the sample ids {str(file)!r}, which are no JSON ({error}). Write such as {{"food": [6, 1]}}.'
        ) from error
    if not isinstance(rows, dict) or not all(isinstance(ids, list) for ids in rows.values()):
        raise ValueError(
            f"You passed the sample ids {str(file)!r}, which are no lists of row numbers by set. Write such as "
            '{"food": [6, 1]}.'
        )
    return rows
