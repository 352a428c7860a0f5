"""Where rows come from: the Hub, folders, parquet, CSV, webdataset shards and saved sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from .builders import Part, split_names
from .columns import IMAGE_COLUMNS, check_has_rows
from .csv_header import check_csv_header
from .local_files import check_local_files
from .mask_folders import has_mask_folders, load_mask_folder
from .parts import load_part, load_without_images, stream_part
from .source_errors import named_errors

# By suffix of a single file: the builder of `datasets` that reads it, and its options.
FILE_BUILDERS = {
    ".parquet": ("parquet", {}),
    ".tar": ("webdataset", {}),
    # A class may be called "null", which is no missing value, and a space after a comma belongs to no name.
    ".csv": ("csv", {"keep_default_na": False, "skipinitialspace": True}),
}


def load_images(
    name: str,
    config: str | None = None,
    split: str = "train",
    streaming: bool = False,
    revision: str | None = None,
    data_files: str | None = None,
):
    """Loads a set of images with labels, captions or both. Files of other splits are neither downloaded nor read.

    Args:
        name (`str`): Hub id, ImageFolder, folder of a Hub-format set, `save_to_disk` folder, webdataset folder of
            `.tar` shards, folder of images/ and masks/ ([`load_mask_folder`]), or a single parquet, `.tar` or CSV
            file; paths in a CSV file start at its folder.
        config (`str`, *optional*): Name of the set's configuration.
        split (`str`): Name of the split, or several joined by `+`.
        streaming (`bool`): Whether to read while training instead of before.
        revision (`str`, *optional*): Branch, tag or commit of a set on the Hub.
        data_files (`str`, *optional*): File or pattern of those in the repository or folder that make up the set.

    Returns:
        `datasets.Dataset` or, when streaming, `datasets.IterableDataset`.

    Raises:
        ValueError: for a name that is neither here nor on the Hub, a configuration or split that the set does not
            have, files that cannot be read, and a table without rows.
        ConnectionError: for a Hub that is not reached, and a set that was not loaded before.

    Example:
        >>> dataset.save_to_disk("shapes")
        >>> load_images("shapes").column_names
        ['image', 'label']
    """
    path = Path(name)
    _check_is_here(name)
    if path.is_file():
        return _load_file(name, split, streaming)
    if has_mask_folders(path):
        images = load_mask_folder(path, split)
        return images.to_iterable_dataset() if streaming else images
    if _is_saved(path):
        return _load_saved(name, split, streaming)

    if not data_files and _has_tables_beside_shards(path):
        data_files = "*.tar"
    part = Part(name, config, split, revision, data_files)
    return stream_part(part) if streaming else load_part(part)


def load_for_some_rows(
    name: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    data_files: str | None = None,
) -> datasets.Dataset:
    """Loads a set as [`load_images`] does, if possible without images: [`with_images`] reads those of some rows.

    Args:
        name, config, split, revision, data_files: See [`load_images`].

    Example:
        >>> from hf_pmgaft.data import with_images
        >>> Path("few/data").mkdir(parents=True)
        >>> size = dataset.to_parquet("few/data/test-00000-of-00001.parquet")
        >>> rows = load_for_some_rows("few", split="test")
        >>> [image is None for image in with_images(rows, [2, 0])[:4]["image"]]
        [False, True, False, True]
    """
    path = Path(name)
    _check_is_here(name)
    if not (path.is_file() or _is_saved(path) or _has_tables_beside_shards(path) or has_mask_folders(path)):
        rows = load_without_images(Part(name, config, split, revision, data_files))
        if rows is not None:
            return rows
    return load_images(name, config, split, revision=revision, data_files=data_files)


def parse_set(text: str, default_split: str = "test") -> tuple[str, str | None, str]:
    """Takes `NAME[:config][@split]` apart. An existing path is a name, whatever characters are in it.

    Returns:
        `tuple[str, str | None, str]`: Name, configuration and split, as [`load_images`] takes them.

    Example:
        >>> parse_set("ethz/food101@validation")
        ('ethz/food101', None, 'validation')
        >>> parse_set("user/shapes:large")
        ('user/shapes', 'large', 'test')
    """
    # An existing path is a name, whatever characters are in it: the longest one at the beginning.
    ends = [place for place, character in enumerate(text) if character in "@:"]
    start = next((place for place in [len(text), *reversed(ends)] if place and Path(text[:place]).exists()), 0)
    if not start and re.match(r"[A-Za-z]:[\\/]", text):
        raise ValueError(f"You passed {text!r}, which is a path of Windows that is not here. Correct the path.")

    rest, at, split = text[start:].partition("@")
    name, colon, config = rest.partition(":")
    name, config, split = (text[:start] + name).strip(), config.strip(), split.strip()
    for mark, part, what in ((at, split, "split"), (colon, config, "configuration")):
        if mark and not part:
            raise ValueError(
                f"You passed {text!r}, which names no {what} after {mark}. Write it, or leave {mark} out."
            )
        if mark and mark in part:
            raise ValueError(f"You passed {text!r}, which has two {mark}. Write NAME[:config][@split].")
    if not name:
        raise ValueError(f"You passed {text!r}, which names no data set. Write NAME[:config][@split].")
    return name, config or None, split or default_split


def split_revision(text: str) -> tuple[str, str | None]:
    """Takes `TEXT[#revision]` apart, as names of sets on the Hub may end. An existing path is a name.

    Example:
        >>> split_revision("ethz/food101@validation#v1")
        ('ethz/food101@validation', 'v1')
        >>> split_revision("ethz/food101")
        ('ethz/food101', None)
    """
    if Path(text).exists():
        return text, None
    rest, mark, revision = text.partition("#")
    if mark and not revision:
        raise ValueError(f"You passed {text!r}, which names no revision after #. Write NAME#BRANCH, or leave # out.")
    return rest, revision or None


def _check_is_here(name: str) -> None:
    """Raises `ValueError` for a path without anything there, which can be no name on the Hub."""
    path = Path(name)
    if path.exists():
        return
    if path.suffix.lower() in FILE_BUILDERS:
        raise ValueError(f"You passed the file {name!r}, which is not here. Correct its path.")
    if name.startswith((".", "/", "~")):
        raise ValueError(f"{name!r} is no file or folder here. Correct its path.")


def _is_saved(path: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (path / "state.json").exists() or (path / "dataset_dict.json").exists()


def _load_file(name: str, split: str, streaming: bool):
    """A single file as a set."""
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix not in FILE_BUILDERS:
        raise ValueError(
            f"{name} is no parquet file, shard or CSV file. Pass one, a folder or the name of a set on the Hub."
        )
    check_local_files([name])
    builder, options = FILE_BUILDERS[suffix]
    if builder == "csv":
        check_csv_header(path)

    # A file has one split, which is called what the caller asks for; a slice such as train[:10] is a part of it.
    files = {split.partition("[")[0]: name}
    with named_errors(name, split=split):
        loaded = datasets.load_dataset(builder, data_files=files, split=split, streaming=streaming, **options)

    if builder == "csv":
        return _with_paths_from(path.resolve().parent, loaded)
    return loaded


def _load_saved(folder: str, split: str, streaming: bool):
    """A folder that `save_to_disk` wrote: of one set, which has no splits, or of several splits."""
    check_local_files(str(file) for file in Path(folder).rglob("*.arrow"))
    with named_errors(folder, split=split):
        loaded = datasets.load_from_disk(folder)
    if isinstance(loaded, datasets.DatasetDict):
        missing = [name for name in split_names(split) if name not in loaded]
        if missing:
            raise ValueError(f"{folder} has no split {missing[0]!r}. It has: {sorted(loaded)}.")
        loaded = _sliced(folder, loaded, split)
    elif "[" in split:
        loaded = _sliced(folder, dict.fromkeys(split_names(split), loaded), split)
    return loaded.to_iterable_dataset() if streaming else loaded


def _sliced(folder: str, splits: Mapping[str, datasets.Dataset], split: str) -> datasets.Dataset:
    """The rows of saved splits that a text names, such as `train[:10%]+test`."""
    sizes = {name: len(data) for name, data in splits.items()}
    with named_errors(folder, split=split):
        slices = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    parts = [splits[each.splitname].select(range(each.from_, each.to)) for each in slices]
    return datasets.concatenate_datasets(parts)


def _has_tables_beside_shards(path: Path) -> bool:
    """Whether a folder has a table beside each shard, as img2dataset writes them, which would be taken for the set."""
    return any(path.glob("*.tar")) and any(path.glob("*.parquet")) and not (path / "README.md").exists()


def _with_paths_from(folder: Path, dataset: Any) -> Any:
    """The table with paths that start at `folder`, in the usual image columns and where the first row names a file."""
    check_has_rows(dataset)
    first = next(iter(dataset))
    texts = {column: value for column, value in first.items() if isinstance(value, str)}
    columns = [column for column, value in texts.items() if column in IMAGE_COLUMNS or os.path.isfile(folder / value)]
    return dataset.map(partial(_resolve_paths, folder=folder, columns=columns))


def _resolve_paths(row: dict[str, Any], folder: Path, columns: Sequence[str]) -> dict[str, str]:
    """The columns of one row that hold paths, resolved. Addresses such as https://... and empty cells stay."""
    texts = {column: row[column] for column in columns}
    return {column: str(folder / text) if text and "://" not in text else text for column, text in texts.items()}
