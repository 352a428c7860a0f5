"""The sets of a suite -> evaluation sets, checked against what the suite states of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import datasets

from ..data.evaluation_sets import ZeroShotDataset
from ..data.parquet_rows import with_images
from ..data.sources import load_for_some_rows, load_images
from ..prompts import DEFAULT_PROMPT_TEMPLATES
from .fields import size_range
from .numbering import kept_class_names, label_column_of, number_labels
from .suite import NUM_STORED, draw_sample_ids, read_suite

logger = logging.getLogger(__name__)


def load_suite(
    suite: str | PathLike,
    processor: Any,
    *,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    data_root: str | PathLike | None = None,
) -> list[ZeroShotDataset]:
    """Loads the sets of a suite for evaluation.

    The order of labels is compared with the stored list wherever the set has a `ClassLabel`. Numbers and booleans
    carry no names: of them only the range can be checked.

    Args:
        suite (`str` or path): What `read_suite` reads.
        processor (`CLIPProcessor`): Resizes and crops.
        names (`list[str]`, *optional*): Some sets of the suite; all if not given.
        limit (`int`, *optional*): Evaluate so many images per set, at most 1000: the first of the stored order.
        data_root (`str` or path, *optional*): Folder with a sub-folder per set, named as in the suite (a
            `save_to_disk` folder, parquet files or a copy from the Hub), read in place of the Hub. A set of another
            size than `num_images` is then refused only with a limit, whose sample ids would be other images.

    Raises:
        ValueError: for unknown names, a wrong order of labels, labels out of range, and a set of the wrong size.

    Example:
        >>> from pathlib import Path
        >>> dataset.save_to_disk("shapes")
        >>> text = "shapes: {path: shapes, class_names: [red disc, green disc, blue square, yellow square]}"
        >>> size = Path("own.yaml").write_text(text)
        >>> [(data.name, len(data)) for data in load_suite("own.yaml", processor)]
        [('shapes', 16)]
    """
    entries = read_suite(suite)
    names = list(entries) if names is None else list(names)
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise ValueError(f"The suite {str(suite)!r} has no sets {unknown}. It has: {', '.join(entries)}.")
    check_limit(limit)
    return [load_entry(name, entries[name], processor, limit=limit, data_root=data_root) for name in names]


def load_entry(
    name: str,
    entry: Mapping[str, Any],
    processor: Any,
    *,
    limit: int | None = None,
    sample_ids: Sequence[int] | None = None,
    data_root: str | PathLike | None = None,
) -> ZeroShotDataset:
    """Loads one set by what a suite says of it.

    Args:
        name (`str`): How the set is called.
        entry (`dict`): Its fields, as `read_suite` gives them.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated, in place of a limit.
        processor, limit, data_root: See [`load_suite`].
    """
    load = load_images if limit is None else load_for_some_rows
    images = open_entry(name, entry, data_root, load)
    _check_size(name, entry, len(images), is_strict=limit is not None or data_root is None)

    if limit is not None:
        sample_ids = limited_sample_ids(name, len(images), limit, entry.get("sample_ids"))
        images = with_images(images, sample_ids)
    data = ZeroShotDataset(
        images,
        processor,
        class_names=kept_class_names(entry),
        prompt_templates=entry.get("prompt_template", DEFAULT_PROMPT_TEMPLATES),
        name=name,
        image_column=entry.get("image_column"),
        label_column=label_column_of(entry, images),
        native_size=entry.get("native_size", False),
        resize=entry.get("resize"),
        sample_ids=sample_ids,
        border=entry.get("border", 0),
        accept_any_class_names=entry.get("accept_any_class_names", False),
    )
    least, most = size_range(entry) or (None, None)
    data.is_counted = least != most
    return data


def open_entry(
    name: str,
    entry: Mapping[str, Any],
    data_root: str | PathLike | None = None,
    load: Callable[..., Any] = load_images,
) -> Any:
    """Loads the rows of one set, with labels numbered over the class names that its suite keeps.

    Args:
        name (`str`): How the set is called.
        entry (`dict`): Its fields, as `read_suite` gives them.
        data_root (`str` or path, *optional*): See [`load_suite`].
        load (`Callable`): How rows are loaded: `load_images`, as a stream or not, or `load_for_some_rows`. Labels
            that are numbered anew cannot be streamed.

    Raises:
        ValueError: for labels in another order or outside the classes, and streams whose labels are numbered anew.
    """
    parts = [number_labels(name, entry, images) for images in _open(name, entry, data_root, load)]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def check_limit(limit: int | None) -> None:
    """Raises `ValueError` for a limit that leaves no image, or goes beyond the stored order."""
    if limit is not None and not 1 <= limit <= NUM_STORED:
        raise ValueError(
            f"You passed limit={limit}, but the stored order names {NUM_STORED} images per set. Pass 1 to "
            f"{NUM_STORED}, or no limit for all images."
        )


def limited_sample_ids(name: str, size: int, limit: int, stored: Sequence[int] | None = None) -> list[int]:
    """Gives the rows that a limit takes: the first of the stored order or, without one, of the order by hash.

    Raises:
        ValueError: for a limit beyond the stored order.

    Example:
        >>> limited_sample_ids("shapes", size=8, limit=2, stored=[7, 0, 3, 1])
        [0, 7]
    """
    order = stored or draw_sample_ids(name, size)
    if len(order) < min(limit, size):
        raise ValueError(
            f"You passed limit={limit}, but {len(order)} sample ids of {name!r} are stored. Pass at most "
            f"{len(order)}, or store more in `sample_ids.json`."
        )
    return sorted(order[:limit])


def _open(name: str, entry: Mapping[str, Any], data_root: str | PathLike | None, load: Callable) -> list[Any]:
    """The set, as one data set for each of its configurations."""
    path, revision, data_files = entry["path"], entry.get("revision"), entry.get("data_files")
    if data_root is not None:
        folder = Path(data_root) / name
        if not folder.is_dir():
            # Without this a missing folder would be looked up on the Hub.
            raise ValueError(
                f"You passed data_root={str(data_root)!r}, which has no folder {name!r}. Save the set there."
            )
        path, revision = str(folder), None
        if data_files and not any(folder.glob(data_files)):
            data_files = None  # there may be folders of images in place of the Hub's archives

    configs = entry.get("config")
    if not isinstance(configs, list):
        configs = [configs]
    split = entry.get("split", "test")
    return [load(path, config, split, revision=revision, data_files=data_files) for config in configs]


def _check_size(name: str, entry: Mapping[str, Any], size: int, is_strict: bool) -> None:
    """Refuses a set of another size than the suite states, or warns of it if all of a local copy is evaluated."""
    least, most = size_range(entry) or (size, size)
    if least <= size <= most:
        return
    expected = f"{least}" if least == most else f"{least} to {most}"
    if is_strict:
        raise ValueError(
            f"{name!r} has {size} images, but {expected} are stated: this is another partition or a part of the set, "
            "with which neither figures nor sample ids agree. Load the stated split, or state `num_images` in a suite "
            "of your own."
        )
    logger.warning("%r has %d images in place of the stated %s; all of them are evaluated.", name, size, expected)
