"""One row of a set -> an image, its label and its captions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import datasets
import torch
from PIL import ImageOps
from tqdm.auto import tqdm

from ..models.processors import image_processor_of
from .captions import Captions
from .columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    check_labels,
    class_names_of,
    class_names_or_none,
    column_names,
    find_column,
    has_transform,
    label_index,
)
from .images import read_image


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
        self.processor = image_processor_of(processor)
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


def content_id(pixels: Any) -> int:
    """An id that follows from the pixels alone, for rows that come without an index."""
    return zlib.crc32(torch.as_tensor(pixels).float().contiguous().numpy().tobytes())
