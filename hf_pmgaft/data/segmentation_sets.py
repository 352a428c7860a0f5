"""Sets whose images come with a mask, the class of each pixel."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_readable, check_synonyms
from ..prompts.synonyms import BACKGROUND
from ..registry import check_count
from .columns import find_column
from .evaluation_sets import EvaluationImages
from .images import image_size
from .masks import MASK_COLUMNS, file_name, mask_size, read_mask
from .rows import check_rows, without_decoding

IGNORED = -1  # the label of a pixel that counts nowhere
FIRST_MASKS = 10  # in which a set's numbering is looked for


class SegmentationDataset(EvaluationImages):
    """An evaluation set of images with masks, whose classes are told by their names.

    Rows are `{"images": [3,H,W] in [0,1], "labels": [H,W] int64, "sample_id": int}`. Labels are the numbers of the
    classes, and `IGNORED` (-1) for pixels that count nowhere, which may be all of a mask. Images keep their own sizes,
    which may differ, or are resized by their shortest edge; an image and its mask have one size.

    Args:
        dataset (`datasets.Dataset`): Rows with an image and a mask.
        processor (`CLIPProcessor`): The model's.
        class_names (`list` or `str`): For each class a list of names, a text in which a comma separates them
            (`"person, human"`), or the name of a list of the package, such as `"voc21"`.
        prompt_templates (`str` or `list[str]`): Each with one `{}`.
        name (`str`): How the set is called in tables and reports.
        image_column, mask_column (`str`, *optional*): The usual names if not given; see [`read_mask`].
        ignore_index (`int` or `list[int]`, *optional*): Values in masks that stand for no class.
        reduce_zero_label (`bool`): Whether 0 stands for no class and the first class is 1.
        mask_values (`list`, *optional*): For each class the value, or a list of values, that stands for it in masks;
            0, 1, 2, ... if not given.
        expected_values (`list[int]`, *optional*): Values of which the first masks hold some if they are numbered as
            `mask_values` says; others, such as Cityscapes' train ids, would be read as other classes.
        background_threshold (`float`, *optional*): The first class is where the best of the others stays below this
            probability. It then needs no name; see [`check_synonyms`]. Without it background is a class as others are.
        short_edge (`int`, *optional*): Images and masks are resized to this shortest edge, at their own ratio:
            images bilinearly, smoothed where they shrink, masks to the nearest pixel.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated; all if not given.
        accept_any_class_names (`bool`): Whether names that a text tower cannot know, such as `n01443537`, are taken.

    Raises:
        ValueError: for columns that are missing, class names that are missing, shared or mean nothing to a text tower,
            values that stand for two classes, and a first row that cannot be used: a mask of another size than its
            image, a picture in colours in place of indices, and indices outside the classes. Later rows raise it when
            they are read; [`check_masks`](SegmentationDataset.check_masks) reads all.

    Example:
        >>> rows = [{"image": image, "mask": torch.full((20, 20), 2)} for image in dataset["image"]]
        >>> names = ["background", "disc, circle", "square"]
        >>> data = SegmentationDataset(rows, processor, names, background_threshold=0.4, name="shapes")
        >>> data[3]["images"].shape, data[3]["labels"].unique().tolist(), data.size_of(3)
        (torch.Size([3, 20, 20]), [2], (20, 20))
        >>> data.class_names, data.synonyms
        (['background', 'disc', 'square'], [[], ['disc', 'circle'], ['square']])
    """

    label_columns = ()

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        class_names: Sequence[str | Sequence[str]] | str | None = None,
        prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
        name: str = "set",
        image_column: str | None = None,
        mask_column: str | None = None,
        ignore_index: int | Sequence[int] | None = 255,
        reduce_zero_label: bool = False,
        mask_values: Sequence[int | Sequence[int]] | None = None,
        expected_values: Sequence[int] = (),
        background_threshold: float | None = None,
        short_edge: int | None = None,
        sample_ids: Sequence[int] | None = None,
        accept_any_class_names: bool = False,
    ):
        super().__init__(
            dataset,
            processor,
            prompt_templates=prompt_templates,
            name=name,
            native_size=True,
            resize=None,
            sample_ids=sample_ids,
            image_column=image_column,
            needs_labels=False,
        )
        self.mask_column = find_column(dataset, mask_column, MASK_COLUMNS, "mask")
        self.short_edge = None if short_edge is None else check_count("short_edge", short_edge)

        # Classes
        if class_names is None:
            raise ValueError(f"You passed no class_names for {name!r}, whose masks hold numbers. Pass one per class.")
        self.background_threshold = check_background_threshold(background_threshold)
        self.synonyms = check_synonyms(class_names, background_threshold is not None)
        self.class_names = [names[0] if names else BACKGROUND for names in self.synonyms]
        if not accept_any_class_names:
            check_readable([synonym for names in self.synonyms for synonym in names])
        self._labels = label_of_values(self.class_names, ignore_index, reduce_zero_label, mask_values)

        self.dataset = without_decoding(self.dataset, self.mask_column)
        self.size_of(self._first)
        self.labels(self.dataset[self._first], self._first)
        if expected_values:
            self._check_numbering(set(expected_values))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.example(self.dataset[index], index), "sample_id": index}

    def example(self, row: dict[str, Any], position: int) -> dict[str, Any]:
        """Gives image and labels of one row."""
        labels = self.labels(row, position)
        return {"images": self.pixels(row[self.image_column], position).clamp(0, 1), "labels": labels}

    def labels(self, row: dict[str, Any], position: int) -> torch.Tensor:
        """Gives the class of each pixel of a row, `[H,W]` int64, `IGNORED` where there is none.

        Raises:
            ValueError: for a mask that cannot be read, of another size than the image, or with a value that stands for
                no class.
        """
        self._check_sizes(row, position)
        mask = row[self.mask_column]
        with self.naming_row("mask", self.mask_column, position, file_name(mask)):
            values, places = np.unique(read_mask(mask), return_inverse=True)
            unknown = [value for value in values.tolist() if value not in self._labels]
            if unknown:
                known = sorted(value for value, label in self._labels.items() if label != IGNORED)
                raise ValueError(
                    f"it holds {unknown[:5]}, which stand for none of the {len(self.class_names)} "
                    f"classes ({known[0]} to {known[-1]}): masks hold indices, not levels of grey; correct "
                    "class_names, or name what is to be left out as ignore_index"
                )
        labels = np.array([self._labels[value] for value in values.tolist()])[places]
        height, width = self._resized(*labels.shape)
        labels = labels[_nearest(labels.shape[0], height)][:, _nearest(labels.shape[1], width)]
        return torch.from_numpy(labels)

    def size_of(self, row: int) -> tuple[int, int]:
        """Gives height and width at which the image of a row is attacked, from the headers of its files alone.

        Raises:
            ValueError: for an image or mask that cannot be read, a mask in colours, and one of another size than the
                image.
        """
        return self._resized(*self._check_sizes(self.dataset[row], row))

    @property
    def shape(self) -> torch.Size:
        """`[3,H,W]` of the first image that is evaluated; others may have another."""
        return torch.Size([3, *self.size_of(self._first)])

    def framed(self, image: Image.Image) -> Image.Image:
        """The image at the size at which it is attacked."""
        height, width = self._resized(image.height, image.width)
        return image.resize((width, height), Image.Resampling.BILINEAR)

    def check_masks(self, rows: Sequence[int] | None = None) -> None:
        """Reads the masks of some rows, or of all that are evaluated, without their images.

        Raises:
            ValueError: that names all those that cannot be used.
        """
        named = self.rows() if rows is None else ((row, self.dataset[row]) for row in rows)
        check_rows(named, self.labels)

    def _check_numbering(self, expected: set[int]) -> None:
        """Raises `ValueError` if the first masks hold none of the values that are expected of their numbering."""
        seen: set[int] = set()
        for _, row in itertools.islice(self.rows(), FIRST_MASKS):
            seen.update(np.unique(read_mask(row[self.mask_column])).tolist())
            if seen & expected:
                return
        raise ValueError(
            f"The first masks of {self.name!r} hold {sorted(seen)} and none of {sorted(expected)}, so that they are "
            "numbered in another way than the set's own, and would be read as other classes. Pass masks with its own "
            "numbers, or describe yours by class_names and mask_values as a set of your own."
        )

    def _check_sizes(self, row: dict[str, Any], position: int) -> tuple[int, int]:
        """Height and width of a row's image, as it is stored; its mask must have the same."""
        with self.naming_row("image", self.image_column, position):
            height, width = image_size(row[self.image_column])
        mask = row[self.mask_column]
        with self.naming_row("mask", self.mask_column, position, file_name(mask)):
            size = mask_size(mask)
            if size != (height, width):
                raise ValueError(f"it is {size[1]} x {size[0]}, but its image {width} x {height}")
        return height, width

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """The size at which an image is attacked."""
        if self.short_edge is None:
            return height, width
        edge = min(height, width)
        return round(height * self.short_edge / edge), round(width * self.short_edge / edge)


def check_background_threshold(threshold: float | None) -> float | None:
    """Returns the probability below which a pixel is background, or raises `ValueError` for what is none.

    Example:
        >>> check_background_threshold(0.5)
        0.5
    """
    if threshold is None:
        return None
    is_number = isinstance(threshold, numbers.Real) and not isinstance(threshold, bool)
    if not (is_number and 0 < threshold < 1):
        raise ValueError(
            f"You passed background_threshold={threshold!r}, which is no probability. Pass a number between 0 and 1, "
            "or None where background is a class as others are."
        )
    return float(threshold)


def label_of_values(
    class_names: Sequence[str],
    ignore_index: int | Sequence[int] | None = 255,
    reduce_zero_label: bool = False,
    mask_values: Sequence[int | Sequence[int]] | None = None,
) -> dict[int, int]:
    """Says which label each value of a mask stands for: the number of a class, or `IGNORED`.

    Args:
        class_names (`list[str]`): One per class.
        ignore_index, reduce_zero_label, mask_values: See [`SegmentationDataset`].

    Raises:
        ValueError: for values that are no whole numbers, another number of them than classes, and one that stands for
            two classes, or for a class and none.

    Example:
        >>> label_of_values(["wall", "sky"], ignore_index=255, reduce_zero_label=True)
        {1: 0, 2: 1, 0: -1, 255: -1}
    """
    count = len(class_names)
    if mask_values is None:
        mask_values = range(1, count + 1) if reduce_zero_label else range(count)
    elif reduce_zero_label:
        raise ValueError("You passed mask_values and reduce_zero_label, which both say what 0 is. Pass one of them.")
    if len(mask_values) != count:
        raise ValueError(f"You passed {len(mask_values)} mask_values for {count} classes. Pass one per class.")

    ignored = _values("ignore_index", [] if ignore_index is None else ignore_index)
    if reduce_zero_label:
        ignored = [0, *ignored]
    labels: dict[int, int] = {}
    of_classes = [_values("mask_values", values) for values in mask_values]
    for label, values in [*enumerate(of_classes), (IGNORED, ignored)]:
        for value in values:
            first = labels.setdefault(value, label)
            if first != label:
                other = "ignore_index" if label == IGNORED else f"class {label}, {class_names[label]!r:.40}"
                raise ValueError(
                    f"The value {value} of masks stands for class {first}, {class_names[first]!r:.40}, and for "
                    f"{other}. Pass another ignore_index, or None, or mask_values that differ."
                )
    return labels


def _values(option: str, values: Any) -> list[int]:
    """One value or several as a list of whole numbers."""
    values = list(values) if isinstance(values, (list, tuple, set, range)) else [values]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError(f"You passed {option} with {value!r:.40}, which is no value of a mask. Pass integers.")
    return [int(value) for value in values]


def _nearest(length: int, new: int) -> np.ndarray:
    """The places among `length` pixels that are nearest to `new` ones over the same width."""
    return ((np.arange(new) + 0.5) * length / new).astype(np.int64)
