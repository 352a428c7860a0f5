"""Any Hub, ImageFolder, parquet, saved or streaming set -> training examples and zero-shot evaluation sets."""

from __future__ import annotations

import copy
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from tqdm.auto import tqdm

from .captions import Captions, check_captions, padding_id, stack_captions
from .noise import sample_seeds, uniform_noise
from .prompts import DEFAULT_PROMPT_TEMPLATES, check_class_names, check_prompt_templates
from .zero_shot import pixel_statistics

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "path", "file_name")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")

# By suffix, the builder of `datasets` and its options; a class may be called "null", which is no missing value.
BUILDERS = {".parquet": ("parquet", {}), ".tar": ("webdataset", {}), ".csv": ("csv", {"keep_default_na": False})}


def load_images(
    name: str,
    config: str | None = None,
    split: str = "train",
    streaming: bool = False,
    revision: str | None = None,
    data_files: str | None = None,
):
    """Loads a set of images with labels, captions or both.

    Args:
        name (`str`): Hub id, ImageFolder, folder of a Hub-format set, `save_to_disk` folder, webdataset folder of
            `.tar` shards, or a single parquet, `.tar` or CSV file; paths in a CSV file start at its folder.
        config (`str`, *optional*): Name of the set's configuration.
        split (`str`): Name of the split, or several joined by `+`.
        streaming (`bool`): Whether to read while training instead of before.
        revision (`str`, *optional*): Branch, tag or commit of a set on the Hub.
        data_files (`str`, *optional*): File or pattern of those in the repository or folder that make up the set.
    """
    path = Path(name)
    if path.is_file():
        if path.suffix not in BUILDERS:
            raise ValueError(
                f"{name} is no parquet file, shard or CSV file. Pass one, a folder or the name of a set on the Hub."
            )
        builder, options = BUILDERS[path.suffix]
        files = {split.partition("[")[0]: name}
        loaded = datasets.load_dataset(builder, data_files=files, split=split, streaming=streaming, **options)
        return resolve_paths(loaded, path.resolve().parent) if builder == "csv" else loaded
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        loaded = datasets.load_from_disk(name)
        if isinstance(loaded, datasets.DatasetDict):
            missing = [part for part in split.split("+") if part not in loaded]
            if missing:
                raise ValueError(f"{name} has no split {missing[0]!r}. It has: {sorted(loaded)}.")
            loaded = datasets.concatenate_datasets([loaded[part] for part in split.split("+")])
        return loaded.to_iterable_dataset() if streaming else loaded
    # img2dataset writes a table beside each shard, which would be taken for the set.
    beside = any(path.glob("*.tar")) and any(path.glob("*.parquet")) and not (path / "README.md").exists()
    shards = {"data_files": data_files or "*.tar"} if beside or data_files else {}
    return datasets.load_dataset(name, config, split=split, streaming=streaming, revision=revision, **shards)


def resolve_paths(dataset: Any, folder: Path) -> Any:
    """Lets paths in a table start at `folder`: in the usual image columns, and where the first row names a file."""
    column_names(dataset)  # which refuses a table without rows
    first = next(iter(dataset))
    texts = {column: value for column, value in first.items() if isinstance(value, str)}
    columns = [c for c, value in texts.items() if c in IMAGE_COLUMNS or os.path.isfile(folder / value)]
    return dataset.map(partial(_beside, folder=folder, columns=columns))


def _beside(row: dict[str, Any], folder: Path, columns: Sequence[str]) -> dict[str, str]:
    return {column: row[column] if "://" in row[column] else str(folder / row[column]) for column in columns}


def parse_set(text: str, default_split: str = "test") -> tuple[str, str | None, str]:
    """`name[:config][@split]` -> name, config, split; an existing path is a name, whatever is in it."""
    if Path(text).exists():
        return text, None, default_split
    rest, _, split = text.partition("@")
    name, _, config = rest.partition(":")
    return name, config or None, split or default_split


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


def check_rows(rows: Iterable[tuple[int, Any]], read: Callable[[Any, int], Any]) -> None:
    """Reads every numbered row, and raises one `ValueError` that names all those that cannot be used."""
    broken = []
    for position, row in tqdm(rows, desc="Checking data"):
        try:
            read(row, position)
        except ValueError as error:
            broken.append(str(error))
    if broken:
        shown = "\n  ".join(broken[:20] + ["..."] * (len(broken) > 20))
        raise ValueError(f"{len(broken)} of the rows cannot be used:\n  {shown}\nRepair or remove them.")


class LabelledImages:
    """What map-style and streaming image sets share: columns, class names, and one row -> image, label and captions.

    With captions, or with `needs_labels=False`, labels and class names are optional: `label_column` and `class_names`
    are `None` without them.
    """

    border = 0
    label_columns = LABEL_COLUMNS

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        class_names: Sequence[str] | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        normalize: bool = True,
        native_size: bool = False,
        resize: int | None = None,
        caption_column: str | Sequence[str] | None = None,
        needs_labels: bool = True,
    ):
        features = getattr(dataset, "features", None) or {}
        self.image_column = find_column(dataset, image_column, IMAGE_COLUMNS, "image")
        self.captions = self.label_column = self.class_names = None
        columns = column_names(dataset)
        if caption_column:
            known = {} if has_transform(dataset) else features
            self.captions = Captions(caption_column, columns, known, processor)
        usual = [name for name in self.label_columns if self.captions is None or not self.captions.holds_text(name)]
        labelled = label_column or class_names is not None or not set(usual).isdisjoint(columns)
        optional = caption_column or not needs_labels
        if labelled or not optional:
            self.label_column = find_column(dataset, label_column, usual, "label")
            names_of = class_names_or_none if optional else class_names_of
            self.class_names = names_of(dataset, self.label_column, class_names)
        feature = features.get(self.image_column)
        if isinstance(feature, datasets.Image) and not has_transform(dataset):
            # Decoded here rather than by the library, so that a broken image can be named by its row.
            dataset = dataset.with_format(None).cast_column(self.image_column, datasets.Image(decode=False))
        self.dataset = dataset
        self.processor = getattr(processor, "image_processor", processor)
        self.options = {"do_normalize": normalize and getattr(self.processor, "do_normalize", True)}
        if native_size:
            self.options.update(do_resize=False, do_center_crop=False)
        if resize is not None:
            self.options.update(do_resize=True, size={"shortest_edge": resize})
        self.index = None
        if self.class_names is not None:
            self.index = {name: i for i, name in enumerate(self.class_names)}
            check_labels(dataset, self.label_column, self.index)

    def pixels(self, value: Any, row: int | str) -> torch.Tensor:
        """The image of a row as the processor makes it, `[3,H,W]`."""
        try:
            image = read_image(value)
            image = ImageOps.crop(image, self.border) if self.border else image
            pixels = self.processor(images=image, return_tensors="pt", **self.options)["pixel_values"][0]
            pixels = torch.as_tensor(pixels)
            if not torch.isfinite(pixels).all():
                raise ValueError("it holds NaN or infinite pixels")
        except Exception as error:  # a broken file makes Pillow raise anything
            raise ValueError(
                f"The image in row {row}, column {self.image_column!r}, cannot be read ({error}). Repair or remove "
                "the row; --check_data lists all such rows before training."
            ) from error
        return pixels

    def example(self, row: dict[str, Any], position: int | str) -> dict[str, Any]:
        """`pixel_values`, `labels` and the captions' token ids of one row, as far as the set has them."""
        example = {"pixel_values": self.pixels(row[self.image_column], position)}
        if self.label_column is not None:
            example["labels"] = label_index(row[self.label_column], self.index, position)
        if self.captions is not None:
            example.update(self.captions.tokens(row, position))
        return example

    def check(self) -> None:
        """Reads every row, and raises `ValueError` naming all those that cannot be used."""
        check_rows(self.rows(), self.example)

    def rows(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """The underlying rows in order, numbered."""
        if hasattr(self.dataset, "__len__"):
            return ((i, self.dataset[i]) for i in range(len(self.dataset)))
        return enumerate(self.dataset)


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


class EvaluationImages(LabelledImages, Dataset):
    """Images in [0,1] at the size at which they are attacked, and the templates of the texts they are judged by.

    The size is the model's, after the processor's resize and crop, or their own with `native_size=True`.

    Args:
        dataset (`datasets.Dataset`), processor (`CLIPProcessor`): See [`ZeroShotDataset`].
        prompt_templates, name, native_size, resize, sample_ids: Likewise.
        columns: Class names and columns, as [`LabelledImages`] takes them.
    """

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
        if resize is not None:
            check_resize(resize, native_size, getattr(processor, "image_processor", processor))
        options = {"normalize": False, "native_size": native_size, "resize": resize}
        super().__init__(dataset, processor, **options, **columns)
        self.prompt_templates = check_prompt_templates(prompt_templates)
        self.sample_ids = None if sample_ids is None else check_sample_ids(sample_ids, len(dataset), name)
        self.name = name
        self.native_size = native_size
        self.resize = resize

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, pixels: torch.Tensor, index: int) -> torch.Tensor:
        """The pixels of a row in [0,1], `[3,H,W]`; `ValueError` if they are of another size than the first row's."""
        if pixels.shape != self.shape:
            raise ValueError(
                f"The image in row {index} of {self.name!r} is {list(pixels.shape)}, that in row 0 "
                f"{list(self.shape)}; images of several sizes make no batch. Leave native_size off, or use a "
                "processor that crops."
            )
        return pixels.clamp(0, 1)

    @cached_property
    def shape(self) -> torch.Size:
        """`[3,H,W]` of the first image, which all others must have."""
        return self.pixels(self.dataset[0][self.image_column], 0).shape


class ZeroShotDataset(EvaluationImages):
    """An evaluation set that carries its own class names and templates.

    Rows are `{"images": [3,H,W] in [0,1], "labels": int, "sample_id": int}`, at the size at which they are attacked:
    the model's, after the processor's resize and crop, or their own with `native_size=True`.

    Args:
        dataset (`datasets.Dataset`): Rows with an image and a label column.
        processor (`CLIPProcessor`): Resizes and crops.
        class_names (`list[str]`, *optional*): Those of the label column's `ClassLabel` if not given.
        prompt_templates (`str` or `list[str]`): Each with one `{}`.
        name (`str`): How the set is called in tables and reports.
        image_column, label_column (`str`, *optional*): The usual names if not given.
        native_size (`bool`): Attack the images at their own size; they must all have the same.
        resize (`int`, *optional*): Shortest edge, in pixels, before the processor's centre crop; the processor's own
            if not given.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated; all if not given. They are indices of
            `dataset`, and so of this set too, whose length stays that of `dataset`.
        border (`int`): Pixels that are cut off at each edge before anything else.
    """

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        class_names: Sequence[str] | None = None,
        prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
        name: str = "set",
        image_column: str | None = None,
        label_column: str | None = None,
        native_size: bool = False,
        resize: int | None = None,
        sample_ids: Sequence[int] | None = None,
        border: int = 0,
    ):
        if not isinstance(border, int) or border < 0:
            raise ValueError(f"You passed border={border!r}, which is no number of pixels. Pass 0 or more.")
        columns = {"class_names": class_names, "image_column": image_column, "label_column": label_column}
        super().__init__(dataset, processor, prompt_templates, name, native_size, resize, sample_ids, **columns)
        self.border = border

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.example(self.dataset[index], index)
        images = self.image(example["pixel_values"], index)
        return {"images": images, "labels": example["labels"], "sample_id": index}


def check_resize(resize: int, native_size: bool, processor: Any) -> None:
    """Raises `ValueError` if resizing the shortest edge to `resize` does not lead to images of the model's size."""
    if native_size:
        raise ValueError(
            f"You passed native_size and resize={resize}, but images keep their own size or are resized, not both. "
            "Drop one of the two."
        )
    crop = getattr(processor, "crop_size", None)
    if not crop or not getattr(processor, "do_center_crop", False):
        raise ValueError(
            f"You passed resize={resize}, but this {type(processor).__name__} does not crop, so the images would not "
            "have the model's size. Drop resize, or use a processor with do_center_crop."
        )
    # A crop beyond the image would be filled with black.
    edge = max(crop["height"], crop["width"])
    if resize < edge:
        raise ValueError(f"You passed resize={resize}, less than the processor's crop of {edge}. Pass {edge} or more.")


def check_sample_ids(sample_ids: Sequence[int], size: int, name: str) -> list[int]:
    """Returns the rows as a list, or raises `ValueError` if one lies outside the set or stands twice."""
    ids = [int(i) for i in sample_ids]
    outside = [i for i in ids if not 0 <= i < size]
    if outside or not ids:
        raise ValueError(
            f"You passed the sample ids {outside[:5]} for {name!r}, which has the rows 0 to {size - 1}. Pass at least "
            "one, and only rows of this set."
        )
    if len(set(ids)) < len(ids):
        twice = [i for i, count in Counter(ids).items() if count > 1][:5]
        raise ValueError(f"You passed the sample ids {twice} of {name!r} more than once. Pass each row once.")
    return ids


class Collator:
    """Stacks examples and refuses batches that cannot be trained on, while they are still on the CPU.

    Batches hold `pixel_values` `[B,3,H,W]`, `labels` `[B]` and `sample_id` `[B]`; of rows with `input_ids` also
    `input_ids` and `attention_mask` `[B,C,L]` and `num_captions` `[B]`, see [`choose_captions`].

    Args:
        processor (`CLIPProcessor`): Its statistics bound what pixel values can be.
        num_classes (`int`, *optional*): Labels must lie below it. Without it rows with captions need no labels, and
            each is a class of its own then: its label is its sample id.
        collate (`Callable`, *optional*): A collator of one's own; its batches are checked all the same.
        needs_labels (`bool`): Whether rows without captions need labels.
    """

    def __init__(
        self,
        processor: Any,
        num_classes: int | None = None,
        collate: Callable | None = None,
        needs_labels: bool = True,
    ):
        mean, std = (torch.tensor(values) for values in pixel_statistics(processor))
        self.low, self.high = (0 - mean) / std, (1 - mean) / std
        self.num_classes = num_classes
        self.needs_labels = needs_labels
        self.collate = collate or partial(stack, pad_token_id=padding_id(processor))

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(self.collate(rows))
        unlabelled = self.num_classes is None and ("input_ids" in batch or not self.needs_labels)
        needed = ("pixel_values",) if unlabelled else ("pixel_values", "labels")
        missing = [name for name in needed if name not in batch]
        if missing:
            raise ValueError(
                f"The batch has no {' and no '.join(missing)}; it has {sorted(batch)}. Pass rows with `pixel_values` "
                "and an integer in `labels`."
            )
        if "sample_id" not in batch:
            batch["sample_id"] = torch.tensor([content_id(pixels) for pixels in batch["pixel_values"]])
        self._check_pixels(batch["pixel_values"], batch["sample_id"])
        batch["labels"] = self._check_labels(batch.get("labels", batch["sample_id"]), batch["sample_id"])
        if "input_ids" in batch:
            batch.update(check_captions(batch))
        return batch

    def _check_labels(self, labels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError(
                f"The labels are {labels.dtype} of shape {list(labels.shape)}, which name no class per image. Pass "
                "one integer per row."
            )
        if self.num_classes is None:
            return labels.long()
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            raise ValueError(
                f"Rows {ids[outside].tolist()} have the labels {labels[outside].tolist()}, but there are "
                f"{self.num_classes} classes (0 to {self.num_classes - 1}). Correct them or pass all class names."
            )
        return labels.long()

    def _check_pixels(self, pixels: torch.Tensor, ids: torch.Tensor) -> None:
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(
                f"The pixel values are {pixels.dtype} of shape {list(pixels.shape)}, not floating point [B,3,H,W] as "
                "a processor makes them. Pass images, or pixel values made by `processing_class`."
            )
        flat = pixels.flatten(2)
        low, high = flat.amin(2), flat.amax(2)
        broken = ~(torch.isfinite(low) & torch.isfinite(high)).all(1)
        if broken.any():
            raise ValueError(f"The images of rows {ids[broken].tolist()} hold NaN or infinite pixels. Remove them.")
        # Half precision and resizing after normalisation leave small excesses; a wrong scale leaves large ones.
        wrong = ((low < self.low - 0.05) | (high > self.high + 0.05)).any(1)
        if wrong.any():
            raise ValueError(
                f"The pixel values of rows {ids[wrong].tolist()} span {low.min():.2f} to {high.max():.2f}, but this "
                f"processor's statistics allow {self.low.min():.2f} to {self.high.max():.2f}: they were made by "
                "another processor or not normalised. Pass images, or pixel values made by `processing_class`."
            )


def stack(rows: Sequence[dict[str, Any]], pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Batches rows of tensors and integers, key by key, and captions together; other entries are left out."""
    batch = stack_captions(rows, pad_token_id) if "input_ids" in rows[0] else {}
    for name, value in rows[0].items():
        if name in batch:
            continue
        if name == "pixel_values":
            batch[name] = _stack_pixels(rows)
        elif isinstance(value, torch.Tensor):
            batch[name] = torch.stack([row[name] for row in rows])
        elif isinstance(value, (int, np.integer)):
            batch[name] = torch.tensor([int(row[name]) for row in rows])
    if "label" in batch and "labels" not in batch:
        batch["labels"] = batch.pop("label")
    return batch


def _stack_pixels(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    pixels = [row["pixel_values"] for row in rows]
    pixels = [x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x, dtype=np.float32)) for x in pixels]
    shapes = sorted({tuple(x.shape) for x in pixels})
    if len(shapes) > 1:
        raise ValueError(
            f"The images of rows {[row.get('sample_id', '?') for row in rows]} have several shapes: {shapes}, which "
            "make no batch. Use a processor that resizes and crops."
        )
    return torch.stack(pixels)


def augment(images: torch.Tensor, seeds: torch.Tensor, strength: float) -> torch.Tensor:
    """Random flip, shift, scale, rotation and colour of images in [0,1], a function of each image's seed alone.

    Args:
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1].
        seeds (`torch.Tensor`): `[B]`, int64.
        strength (`float`): 0 leaves the images as they are; at 1 rotation reaches 15 degrees, scale 25 %, shift 10 %,
            brightness and contrast 20 %.
    """
    if strength == 0:
        return images
    u = uniform_noise(seeds, (12,)).to(images.dtype)
    signed = 2 * u - 1
    angle = signed[:, 0] * strength * torch.pi / 12
    scale_x = 1 + 0.25 * strength * signed[:, 1]
    scale_y = scale_x * (1 + 0.1 * strength * signed[:, 2])
    flip = torch.where(u[:, 3] < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    shift_x, shift_y = 0.2 * strength * signed[:, 4], 0.2 * strength * signed[:, 5]
    rows = [flip * cos / scale_x, -sin / scale_x, shift_x, flip * sin / scale_y, cos / scale_y, shift_y]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast = (1 + 0.2 * strength * signed[:, 6]).view(-1, 1, 1, 1)
    brightness = (0.2 * strength * signed[:, 7]).view(-1, 1, 1, 1)
    mean = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - mean) * contrast + mean + brightness).clamp(0, 1)


def content_id(pixels: Any) -> int:
    """An id that follows from the pixels alone, for rows that come without an index."""
    return zlib.crc32(torch.as_tensor(pixels).float().contiguous().numpy().tobytes())


def read_image(value: Any) -> Any:
    """A file's name or content, as `datasets` stores them, as an upright RGB image.

    Arrays of 8 or 16 bits `[H,W]`, `[H,W,3]` or `[H,W,4]` are images too; others pass as they are.
    """
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    if isinstance(value, bytes):
        value = {"path": None, "bytes": value}
    if isinstance(value, dict):
        value = datasets.Image().decode_example(value)
    if value is None:
        raise ValueError("there is none")
    if isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.uint16):
        if value.ndim == 2 or value.ndim == 3 and value.shape[-1] in (3, 4):
            value = Image.fromarray(to_8_bits(value))
    if not isinstance(value, Image.Image):
        return value
    turned = value.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return flatten_on_white(ImageOps.exif_transpose(value) if turned else value)


def flatten_on_white(image: Image.Image) -> Image.Image:
    """An RGB image of 8 bits; transparent pixels become white, as CLIPProcessor makes them."""
    # Pillow before 11 opens a PNG of 16 bits as one of 32.
    if image.mode.startswith("I;16") or image.mode == "I" and image.format == "PNG":
        image = Image.fromarray(to_8_bits(np.asarray(image)))
    if image.mode[0] in "IF":
        raise ValueError(
            f"mode {image.mode} holds numbers without a known scale: convert it to 8 or 16 bits per channel"
        )
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Pixels of 16 bits, where white is 65535, to the nearest of 8; pixels of 8 bits as they are."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
