"""Any Hub, ImageFolder, parquet, saved or streaming set -> training examples and zero-shot evaluation sets."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import Dataset, IterableDataset
from tqdm.auto import tqdm

from .attacks import uniform_noise
from .zero_shot import DEFAULT_PROMPT_TEMPLATES, check_class_names, check_prompt_templates, pixel_statistics

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")


def load_images(name: str, config: str | None = None, split: str = "train", streaming: bool = False):
    """Loads a labelled image set.

    Args:
        name (`str`): Hub id, ImageFolder, folder of a Hub-format set, `save_to_disk` folder, or a parquet file.
        config (`str`, *optional*): Name of the set's configuration.
        split (`str`): Name of the split.
        streaming (`bool`): Whether to read while training instead of before.
    """
    path = Path(name)
    if path.is_file():
        return datasets.load_dataset("parquet", data_files={split: name}, split=split, streaming=streaming)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        loaded = datasets.load_from_disk(name)
        if isinstance(loaded, datasets.DatasetDict):
            if split not in loaded:
                raise ValueError(f"{name} has no split {split!r}. It has: {sorted(loaded)}.")
            loaded = loaded[split]
        return loaded
    return datasets.load_dataset(name, config, split=split, streaming=streaming)


def parse_set(text: str, default_split: str = "test") -> tuple[str, str | None, str]:
    """`name[:config][@split]` -> name, config, split."""
    rest, _, split = text.partition("@")
    name, _, config = rest.partition(":")
    return name, config or None, split or default_split


def find_column(dataset: Any, given: str | None, usual: Sequence[str], kind: str) -> str:
    """The name of the image or label column: the given one, or the first of the usual ones that the set has."""
    columns = list(getattr(dataset, "column_names", None) or _first_row(dataset))
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


def class_names_of(dataset: Any, label_column: str, given: Sequence[str] | None = None) -> list[str]:
    """The class names: the given ones, those of a `ClassLabel`, or the sorted texts of a text column."""
    if given is not None:
        return check_class_names(given)
    feature = (getattr(dataset, "features", None) or {}).get(label_column)
    if isinstance(feature, datasets.ClassLabel):
        return check_class_names(feature.names)
    if getattr(feature, "dtype", None) == "string" and isinstance(dataset, datasets.Dataset):
        return check_class_names(sorted(set(dataset.unique(label_column))))
    raise ValueError(
        f"Column {label_column!r} of the data set is {feature}, which names no classes. Pass `class_names`, one name "
        "per label in the order of the labels."
    )


class LabelledImages:
    """What map-style and streaming image sets share: columns, class names, and one row -> image and label."""

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        class_names: Sequence[str] | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        normalize: bool = True,
        native_size: bool = False,
    ):
        self.image_column = find_column(dataset, image_column, IMAGE_COLUMNS, "image")
        self.label_column = find_column(dataset, label_column, LABEL_COLUMNS, "label")
        self.class_names = class_names_of(dataset, self.label_column, class_names)
        feature = (getattr(dataset, "features", None) or {}).get(self.image_column)
        if isinstance(feature, datasets.Image):
            # Decoded here rather than by the library, so that a broken image can be named by its row.
            dataset = dataset.cast_column(self.image_column, datasets.Image(decode=False))
        self.dataset = dataset
        self.processor = getattr(processor, "image_processor", processor)
        self.options = {"do_normalize": normalize and getattr(self.processor, "do_normalize", True)}
        if native_size:
            self.options.update(do_resize=False, do_center_crop=False)
        self.index = {name: i for i, name in enumerate(self.class_names)}
        self._check_labels()

    def _check_labels(self) -> None:
        if not isinstance(self.dataset, datasets.Dataset):
            return
        for row, label in enumerate(self.dataset.select_columns([self.label_column])[self.label_column]):
            self.label(label, row)

    def label(self, value: Any, row: int | str) -> int:
        """The label of a row as an index into the class names."""
        label = self.index.get(value, -1) if isinstance(value, str) else int(value)
        if not 0 <= label < len(self.class_names):
            raise ValueError(
                f"Row {row} has the label {value!r}, which is not among the {len(self.class_names)} classes (0 to "
                f"{len(self.class_names) - 1}). Correct the row or pass the full list as `class_names`."
            )
        return label

    def pixels(self, value: Any, row: int | str) -> torch.Tensor:
        """The image of a row as the processor makes it, `[3,H,W]`."""
        try:
            if isinstance(value, dict):
                value = Image.open(io.BytesIO(value["bytes"]) if value.get("bytes") else value["path"])
            if isinstance(value, Image.Image):
                value = flatten_on_white(value)
            return self.processor(images=value, return_tensors="pt", **self.options)["pixel_values"][0]
        except (OSError, SyntaxError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The image in row {row}, column {self.image_column!r}, cannot be read ({error}). Repair or remove "
                "the row; --check_data lists all such rows before training."
            ) from error

    def example(self, row: dict[str, Any], position: int | str) -> dict[str, Any]:
        """`pixel_values` and `labels` of one row of the underlying set."""
        return {
            "pixel_values": self.pixels(row[self.image_column], position),
            "labels": self.label(row[self.label_column], position),
        }

    def check(self) -> None:
        """Reads every row, and raises `ValueError` naming all those that cannot be used."""
        broken = []
        for position, row in enumerate(tqdm(self.dataset, desc="Checking images")):
            try:
                pixels = self.example(row, position)["pixel_values"]
                if not torch.isfinite(pixels).all():
                    broken.append(f"row {position}: its pixels are not finite")
            except ValueError as error:
                broken.append(f"row {position}: {error}")
        if broken:
            shown = "\n  ".join(broken[:20])
            raise ValueError(f"{len(broken)} of the rows cannot be used:\n  {shown}\nRepair or remove them.")


class ImageClassificationDataset(LabelledImages, Dataset):
    """A map-style labelled image set as training examples.

    Rows are `{"pixel_values": [3,H,W], "labels": int, "sample_id": int}`, with pixel values as the processor makes
    them and the row's index as its id.
    """

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.example(self.dataset[index], index), "sample_id": index}


class StreamingImages(LabelledImages, IterableDataset):
    """A streaming labelled image set as training examples; a row's id is a checksum of its pixels."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position, row in enumerate(self.dataset):
            example = self.example(row, f"{position} of the stream")
            yield {**example, "sample_id": content_id(example["pixel_values"])}

    def set_epoch(self, epoch: int) -> None:
        """Reshuffles the stream, if it shuffles at all."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class WithSampleId(Dataset):
    """A map-style set of processor-made rows (`pixel_values`, `labels`), each with its index as `sample_id`."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

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
):
    """Any data set that `Trainer` users have -> one whose rows hold `pixel_values`, `labels` and `sample_id`.

    Processor-made rows pass as they are; rows with an image column go through the processor.
    """
    if isinstance(dataset, (LabelledImages, WithSampleId)):
        return dataset
    columns = list(getattr(dataset, "column_names", None) or ())
    streaming = isinstance(dataset, (IterableDataset, datasets.IterableDataset))
    if not columns and not streaming:
        columns = _first_row(dataset)
    if "pixel_values" in columns or (streaming and not columns):
        return dataset if streaming else WithSampleId(dataset)
    cls = StreamingImages if streaming else ImageClassificationDataset
    return cls(dataset, processor, class_names, image_column, label_column)


class ZeroShotDataset(LabelledImages, Dataset):
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
    ):
        super().__init__(dataset, processor, class_names, image_column, label_column, False, native_size)
        self.prompt_templates = check_prompt_templates(prompt_templates)
        self.name = name
        self.native_size = native_size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.example(self.dataset[index], index)
        return {
            "images": example["pixel_values"].clamp(0, 1),
            "labels": example["labels"],
            "sample_id": index,
        }


class Collator:
    """Stacks examples and refuses batches that cannot be trained on, while they are still on the CPU.

    Args:
        processor (`CLIPProcessor`): Its statistics bound what pixel values can be.
        num_classes (`int`): Labels must lie below it.
        collate (`Callable`, *optional*): A collator of one's own; its batches are checked all the same.
    """

    def __init__(self, processor: Any, num_classes: int, collate: Callable | None = None):
        mean, std = (torch.tensor(values) for values in pixel_statistics(processor))
        self.low, self.high = (0 - mean) / std, (1 - mean) / std
        self.num_classes = num_classes
        self.collate = collate or stack

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(self.collate(rows))
        missing = [name for name in ("pixel_values", "labels") if name not in batch]
        if missing:
            raise ValueError(f"The batch has no {' and no '.join(missing)}; it has {sorted(batch)}.")
        if "sample_id" not in batch:
            batch["sample_id"] = torch.tensor([content_id(pixels) for pixels in batch["pixel_values"]])
        self._check_pixels(batch["pixel_values"], batch["sample_id"])
        labels = batch["labels"]
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            raise ValueError(
                f"Rows {batch['sample_id'][outside].tolist()} have the labels {labels[outside].tolist()}, but there "
                f"are {self.num_classes} classes (0 to {self.num_classes - 1}). Correct them or pass all class names."
            )
        return batch

    def _check_pixels(self, pixels: torch.Tensor, ids: torch.Tensor) -> None:
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


def stack(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Batches rows of tensors and integers, key by key; other entries are left out."""
    batch = {}
    for name, value in rows[0].items():
        if isinstance(value, torch.Tensor):
            batch[name] = torch.stack([row[name] for row in rows])
        elif isinstance(value, (int, np.integer)):
            batch[name] = torch.tensor([int(row[name]) for row in rows])
        elif name == "pixel_values":
            batch[name] = torch.stack([torch.as_tensor(np.asarray(row[name])) for row in rows])
    if "label" in batch and "labels" not in batch:
        batch["labels"] = batch.pop("label")
    return batch


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
    return zlib.crc32(np.ascontiguousarray(np.asarray(pixels)).tobytes())


def flatten_on_white(image: Image.Image) -> Image.Image:
    """An RGB image; transparent pixels become white, as CLIPProcessor makes them."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _first_row(dataset: Any) -> list[str]:
    row = dataset[0]
    if not isinstance(row, dict):
        raise ValueError(f"The data set's rows are {type(row).__name__}; pass rows that are dicts of named columns.")
    return list(row)
