"""Sets with masks: by what a suite says of one, or by what a command line does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from ..data.columns import LABEL_COLUMNS, column_names, features_of
from ..data.mask_folders import class_file
from ..data.masks import MASK_COLUMNS
from ..data.segmentation_sets import SegmentationDataset
from ..prompts import DEFAULT_PROMPT_TEMPLATES, read_names

# What `SegmentationDataset` takes beside what other sets do, and what of it goes with the readout more than with the
# set, so that it may be said of a known set too.
MASK_OPTIONS = (
    "mask_column",
    "ignore_index",
    "reduce_zero_label",
    "mask_values",
    "expected_values",
    "background_threshold",
    "short_edge",
)
OF_READOUT = ("background_threshold", "short_edge")


def is_masked(entry: Mapping[str, Any]) -> bool:
    """Whether a suite says that a set has masks: it names their column.

    Example:
        >>> is_masked({"path": "user/streets", "mask_column": "mask"}), is_masked({"path": "user/photos"})
        (True, False)
    """
    return "mask_column" in entry


def holds_masks(dataset: Any) -> bool:
    """Whether rows have masks and no labels of whole images: a usual column of masks that holds images or arrays.

    Example:
        >>> holds_masks(dataset), holds_masks(dataset.rename_columns({"image": "mask", "label": "image"}))
        (False, True)
    """
    features = features_of(dataset)
    masks = [column for column in MASK_COLUMNS if _is_mask(features.get(column))]
    labels = [column for column in LABEL_COLUMNS if column in column_names(dataset) and column not in masks]
    return bool(masks) and not labels


def masked_entry(
    name: str, entry: Mapping[str, Any], images: Any, processor: Any, sample_ids: Sequence[int] | None
) -> SegmentationDataset:
    """Makes a suite's set with masks of its rows.

    Args:
        name (`str`): How the set is called.
        entry (`dict`): Its fields, as `read_suite` gives them.
        images (`datasets.Dataset`): Its rows. A copy of one's own may call the mask otherwise than the suite does.
        processor (`CLIPProcessor`): The model's.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated.
    """
    options = {option: entry[option] for option in MASK_OPTIONS if option in entry}
    if options["mask_column"] not in images.column_names:
        options["mask_column"] = None
    return SegmentationDataset(
        images,
        processor,
        class_names=entry["class_names"],
        prompt_templates=entry.get("prompt_template", DEFAULT_PROMPT_TEMPLATES),
        name=name,
        image_column=entry.get("image_column"),
        sample_ids=sample_ids,
        accept_any_class_names=entry.get("accept_any_class_names", False),
        **options,
    )


def names_beside(path: str) -> list[str] | None:
    """Reads the class names that lie in a folder of masks, if it has a file of them.

    Example:
        >>> from pathlib import Path
        >>> Path("streets").mkdir()
        >>> size = Path("streets/classes.txt").write_text("road, street\\nsky")
        >>> names_beside("streets")
        ['road, street', 'sky']
    """
    file = class_file(path)
    return None if file is None else read_names(file)


def check_mask_options(text: str, options: Mapping[str, Any], is_known: bool = False) -> None:
    """Raises `ValueError` for options of masks that a set does not take.

    Args:
        text (`str`): The set, as the command line names it.
        options (`dict`): Those that were passed.
        is_known (`bool`): Whether it is a suite's set with masks; else it is a set without.

    Example:
        >>> check_mask_options("ade20k", {"short_edge": 448}, is_known=True)
        >>> check_mask_options("dtd", {"short_edge": 448})
        Traceback (most recent call last):
        ValueError: You passed short_edge for 'dtd', which has labels and no masks. Leave it out, or pass mask_column.
    """
    idle = [option for option in options if not (is_known and option in OF_READOUT)]
    if idle and is_known:
        raise ValueError(
            f"You passed {' and '.join(idle)} for {text!r}, which comes with what its suite states. Leave it out."
        )
    if idle:
        raise ValueError(
            f"You passed {' and '.join(idle)} for {text!r}, which has labels and no masks. Leave it out, or pass "
            "mask_column."
        )


def _is_mask(feature: Any) -> bool:
    """Whether a column may hold a mask in each row."""
    if isinstance(feature, datasets.Array2D | datasets.Image):
        return True
    inner = getattr(feature, "feature", None)
    return inner is not None and getattr(inner, "feature", None) is not None
