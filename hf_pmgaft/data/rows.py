"""One row of a set -> an image, its label and its captions."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import torch
from PIL import Image, ImageOps

from ..models.processors import check_crop, check_rescaling, image_processor_of
from ..progress import progress_bar
from ..prompts import check_readable
from ..registry import check_count
from .captions import Captions
from .columns import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    check_label_column,
    class_names_of,
    class_names_or_none,
    column_names,
    features_of,
    find_column,
    has_transform,
    label_index,
    names_splits,
    place_of,
)
from .images import read_image

USUAL_CROP = 224  # for which suites and papers state the resize


class ImageRows:
    """Reads the rows of an image set: finds its columns, and turns a row into pixels, a label and captions.

    Training sets, streams and evaluation sets are such rows. Labels are optional with captions, and with
    `needs_labels=False`: then `label_column` and `class_names` are `None` if the set has none.

    Args:
        dataset (`datasets.Dataset`, `datasets.IterableDataset` or any set of dicts): The underlying set.
        processor (`CLIPProcessor` or image processor): Makes pixel values of images.
        class_names (`list[str]` or `str`, *optional*): One per label, or the name of a list of the package, such as
            `"tiny_imagenet"`; what the label column says of them if not given.
        image_column, label_column (`str`, *optional*): The usual names if not given.
        normalize (`bool`): Whether the processor normalises; without it pixels are in [0,1].
        native_size (`bool`): Whether images keep their own size.
        resize (`int`, *optional*): Shortest edge, in pixels, before the processor's centre crop.
        caption_column (`str` or `list[str]`, *optional*): See [`Captions`].
        needs_labels (`bool`): Whether rows without captions need labels.
        border (`int`): Pixels that are cut off at each edge before anything else.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken
            where labels are needed. Elsewhere nothing is compared with them.

    Raises:
        ValueError: for columns that are missing, labels that name no classes, class names that mean nothing to a text
            tower, labels outside the classes, and a resize that does not lead to the model's size.

    Example:
        >>> rows = ImageRows(dataset, processor, normalize=False)
        >>> rows.image_column, rows.label_column
        ('image', 'label')
        >>> example = rows.example(dataset[3], position=3)
        >>> example["pixel_values"].shape, example["labels"]
        (torch.Size([3, 16, 16]), 3)
    """

    label_columns = LABEL_COLUMNS
    # What messages call the set, where there may be several.
    name: str | None = None
    # Of some classes alone, their numbers there by those in the set; see `keep_classes`.
    kept_numbers: Mapping[int, int] | None = None

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        class_names: Sequence[str] | str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        normalize: bool = True,
        native_size: bool = False,
        resize: int | None = None,
        caption_column: str | Sequence[str] | None = None,
        needs_labels: bool = True,
        border: int = 0,
        accept_any_class_names: bool = False,
    ):
        # Image
        self.image_column = find_column(dataset, image_column, IMAGE_COLUMNS, "image")
        self.processor = image_processor_of(processor)
        check_rescaling(self.processor)
        if resize is not None:
            check_resize(resize, native_size, self.processor)
            resize = int(resize)
        elif not native_size:
            check_crop(self.processor)
        self.resize = resize
        self.processor_options = _processor_options(self.processor, normalize, native_size, resize)
        self.border = border

        # Captions. Rows that a transform makes have other types than the columns below.
        self.captions = None
        if caption_column:
            features = {} if has_transform(dataset) else features_of(dataset)
            self.captions = Captions(caption_column, column_names(dataset), features, processor)

        # Label
        labels_are_optional = bool(caption_column) or not needs_labels
        self.label_column = self._find_label_column(dataset, label_column, class_names, labels_are_optional)
        self.class_names = None
        if self.label_column is not None and labels_are_optional:
            self.class_names = class_names_or_none(dataset, self.label_column, class_names)
        elif self.label_column is not None:
            self.class_names = class_names_of(dataset, self.label_column, class_names)
            if not accept_any_class_names:
                check_readable(self.class_names)

        # All labels are checked before training rather than on the way.
        self.class_numbers = None
        if self.class_names is not None:
            self.class_numbers = {name: number for number, name in enumerate(self.class_names)}
            check_label_column(dataset, self.label_column, self.class_numbers, self.name)

        self.dataset = without_decoding(dataset, self.image_column)

    def pixels(self, value: Any, position: int | str) -> torch.Tensor:
        """Gives the image of a row as the processor makes it, `[3,H,W]`.

        Args:
            value: What the image column holds, see [`read_image`].
            position (`int` or `str`): The row's number, for messages.

        Raises:
            ValueError: for an image that cannot be read.
        """
        with self.naming_row("image", self.image_column, position):
            image = self.framed(read_image(value))
            made = self.processor(images=image, return_tensors="pt", **self.processor_options)
            pixels = torch.as_tensor(made["pixel_values"][0])
            if not torch.isfinite(pixels).all():
                raise ValueError("it holds NaN or infinite pixels")
        return pixels

    def framed(self, image: Image.Image) -> Image.Image:
        """What of an image the processor gets: all but the border."""
        return ImageOps.crop(image, self.border) if self.border else image

    @contextlib.contextmanager
    def naming_row(self, kind: str, column: str, position: int | str, file: str | None = None) -> Iterator[None]:
        """Names row, column and file in what is raised inside; `kind` is what the message calls their content."""
        try:
            yield
        except Exception as error:  # a broken file makes Pillow raise anything
            in_file = "" if file is None else f", file {file}"
            raise ValueError(
                f"The {kind} in row {place_of(position, self.name)}, column {column!r}{in_file}, cannot be read "
                f"({error}). Repair or remove the row; --check_data lists all such rows beforehand."
            ) from error

    def example(self, row: dict[str, Any], position: int | str) -> dict[str, Any]:
        """Gives the `pixel_values` of one row and, where the set has them, `labels` and the captions' token ids."""
        example = {"pixel_values": self.pixels(row[self.image_column], position)}
        if self.label_column is not None:
            example["labels"] = self.label(row[self.label_column], position)
        if self.captions is not None:
            example.update(self.captions.tokens(row, place_of(position, self.name)))
        return example

    def label(self, value: Any, position: int | str) -> int:
        """Gives the number of the class that the label of a row stands for.

        Raises:
            ValueError: for a label that stands for no class, and for one of a class that was not kept.
        """
        number = label_index(value, self.class_numbers, place_of(position, self.name))
        if self.kept_numbers is None:
            return number
        if number not in self.kept_numbers:
            raise ValueError(
                f"Row {place_of(position, self.name)} has the label {value!r:.80}, whose class was not kept. Read the "
                "rows of its sample_ids."
            )
        return self.kept_numbers[number]

    def check(self) -> None:
        """Reads every row, and raises one `ValueError` that names all those that cannot be used."""
        check_rows(self.rows(), self.example)

    def rows(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """Iterates over the underlying rows, each with its number."""
        if hasattr(self.dataset, "__len__"):
            return ((i, self.dataset[i]) for i in range(len(self.dataset)))
        return enumerate(self.dataset)

    def _find_label_column(
        self, dataset: Any, label_column: str | None, class_names: Any, is_optional: bool
    ) -> str | None:
        """The column of labels, `None` if there need not be one and is none, or one of splits."""
        usual_names = self._usual_label_names()
        is_named = label_column is not None or class_names is not None
        if is_optional and not is_named and not _has_any(dataset, usual_names):
            return None

        column = find_column(dataset, label_column, usual_names, "label")
        if not names_splits(dataset, column):
            return column
        if is_optional and not is_named:
            return None
        splits = ", ".join(features_of(dataset)[column].names)
        raise ValueError(
            f"The classes in column {column!r} are {splits}, which are splits: there are no folders of classes. Give "
            "each class a folder, as in train/cat/1.png, or pass the right column as label_column."
        )

    def _usual_label_names(self) -> list[str]:
        """The usual names of label columns but for those that are read as captions."""
        if self.captions is None:
            return list(self.label_columns)
        return [name for name in self.label_columns if not self.captions.holds_text(name)]


# The name that it had when it was made for labelled sets alone.
LabelledImages = ImageRows


def check_rows(rows: Iterable[tuple[int, Any]], read: Callable[[Any, int], Any]) -> None:
    """Reads every numbered row, and raises one `ValueError` that names all those that cannot be used.

    Example:
        >>> def read(row, position):
        ...     if not row:
        ...         raise ValueError(f"Row {position} is empty.")
        >>> check_rows(enumerate(["cat", ""]), read)
        Traceback (most recent call last):
        ValueError: 1 of the rows cannot be used:
          Row 1 is empty.
        Repair or remove them.
    """
    messages = []
    with progress_bar("Checking data", unit="row", delay=2) as bar:
        for position, row in rows:
            try:
                read(row, position)
            except ValueError as error:
                messages.append(str(error))
            bar.update()

    if messages:
        shown = messages[:20]
        if len(messages) > 20:
            shown.append("...")
        listed = "\n  ".join(shown)
        raise ValueError(f"{len(messages)} of the rows cannot be used:\n  {listed}\nRepair or remove them.")


def check_resize(resize: int, native_size: bool, processor: Any) -> None:
    """Raises `ValueError` if resizing the shortest edge to `resize` does not lead to images of the model's size.

    Example:
        >>> check_resize(18, native_size=False, processor=processor.image_processor)
        >>> check_resize(8, native_size=False, processor=processor.image_processor)
        Traceback (most recent call last):
        ValueError: You passed resize=8, less than the processor's crop of 16. Pass 16 or more.
    """
    check_count("resize", resize)
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
        of_papers = f", such as {scaled_resize(resize, processor)}, which frames as {resize} does at {USUAL_CROP}"
        raise ValueError(
            f"You passed resize={resize}, less than the processor's crop of {edge}. Pass {edge} or more"
            f"{of_papers if resize > USUAL_CROP else ''}."
        )


def scaled_resize(resize: int, processor: Any, stated_crop: int = USUAL_CROP) -> int:
    """What a shortest edge that is stated for one crop is at a processor's crop, so that it frames the same.

    Example:
        >>> scaled_resize(256, processor)  # 16 / 224 of it
        18
    """
    crop = getattr(image_processor_of(processor), "crop_size", None)
    edge = max(crop["height"], crop["width"]) if crop else stated_crop
    return round(resize * edge / stated_crop)


def content_id(pixels: Any) -> int:
    """Computes an id that follows from the pixels alone, for rows that come without a number.

    Example:
        >>> content_id(torch.zeros(3, 16, 16)) == content_id(torch.zeros(3, 16, 16))
        True
    """
    return zlib.crc32(torch.as_tensor(pixels).float().contiguous().numpy().tobytes())


def without_decoding(dataset: Any, column: str) -> Any:
    """Gives the set with the images of a column as files, which are decoded here, so that a broken one can be named.

    Example:
        >>> sorted(without_decoding(dataset, "image")[0]["image"])
        ['bytes', 'path']
    """
    is_image = isinstance(features_of(dataset).get(column), datasets.Image)
    if not is_image or has_transform(dataset):
        return dataset
    return dataset.with_format(None).cast_column(column, datasets.Image(decode=False))


def _has_any(dataset: Any, names: Sequence[str]) -> bool:
    """Whether the set has a column of one of these names."""
    return not set(names).isdisjoint(column_names(dataset))


def _processor_options(processor: Any, normalize: bool, native_size: bool, resize: int | None) -> dict[str, Any]:
    """How the image processor is called."""
    do_normalize = normalize and getattr(processor, "do_normalize", True)
    if native_size:
        return {"do_normalize": do_normalize, "do_resize": False, "do_center_crop": False}
    if resize is not None:
        return {"do_normalize": do_normalize, "do_resize": True, "size": {"shortest_edge": resize}}
    return {"do_normalize": do_normalize}
