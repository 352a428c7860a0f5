"""What a split needs of a set and no more: its own files and, of parquet files, the images of some rows.

`datasets` downloads and parses all splits of a configuration to load one of them.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import datasets
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
from datasets.packaged_modules.parquet.parquet import Parquet

from .builders import Part, builder_of, builder_of_set, from_cache
from .local_files import check_local_files
from .parquet_rows import NUM_THREADS, num_rows, rows_without_images, size_of
from .shards import check_shards


class SplitSize(NamedTuple):
    """What a split takes: bytes of its files, and rows where they can be told without reading them.

    Example:
        >>> SplitSize(num_bytes=5000, num_rows=None)
        SplitSize(num_bytes=5000, num_rows=None)
    """

    num_bytes: int
    num_rows: int | None


def load_split(
    name: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    data_files: str | None = None,
) -> datasets.Dataset:
    """Loads a set on the Hub, or a folder in the layout of one, from the files of a split alone.

    What `datasets` has in its cache, of the whole set or of the split, is taken from there.

    Args:
        name, config, split, revision, data_files: See [`load_images`].

    Raises:
        ValueError: for a split that the set does not have.

    Example:
        >>> from pathlib import Path
        >>> Path("shapes/data").mkdir(parents=True)
        >>> size = dataset.to_parquet("shapes/data/test-00000-of-00001.parquet")
        >>> load_split("shapes", split="test[:3]").num_rows
        3
    """
    return load_part(Part(name, config, split, revision, data_files))


def split_size(
    name: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    data_files: str | None = None,
) -> SplitSize:
    """Tells how large the files of a split are, and how many rows they have, before they are downloaded.

    Rows are counted in the footers of parquet files. Of other formats they are what the set's card states, if it does.

    Args:
        name, config, split, revision, data_files: See [`load_images`].

    Returns:
        `SplitSize`: Of a slice such as `train[:10%]` the bytes are those of the whole files.

    Example:
        >>> from pathlib import Path
        >>> Path("sized/data").mkdir(parents=True)
        >>> size = dataset.to_parquet("sized/data/test-00000-of-00001.parquet")
        >>> split_size("sized", split="test[:3]").num_rows
        3
    """
    part = Part(name, config, split, revision, data_files)
    builder = builder_of(part)
    if builder is None:
        return SplitSize(0, from_cache(part).num_rows)

    files = _files(builder, part)
    with part.named_errors(), ThreadPoolExecutor(NUM_THREADS) as pool:
        num_bytes = sum(pool.map(size_of, [file for paths in files.values() for file in paths]))
        if isinstance(builder, Parquet):
            rows = {key: sum(pool.map(num_rows, paths)) for key, paths in files.items()}
        else:
            stated = builder.info.splits or {}
            keys = [key for key in files or part.splits if key in stated]  # a set from the cache has no files
            rows = {key: stated[key].num_examples for key in keys if stated[key].num_examples}
        if len(rows) < len(files):
            return SplitSize(num_bytes, None)
        slices = datasets.ReadInstruction.from_spec(split).to_absolute(rows)
        return SplitSize(num_bytes, sum(each.to - each.from_ for each in slices))


def load_part(part: Part) -> datasets.Dataset:
    """Loads what [`load_split`] loads."""
    builder = builder_of(part)
    if builder is None:
        return from_cache(part)
    _check_files(builder, part)
    with part.named_errors():
        builder.download_and_prepare()
        return builder.as_dataset(split=part.split)


def stream_part(part: Part) -> datasets.IterableDataset:
    """Reads a set as [`load_part`] does, row by row while it is used.

    Raises:
        ValueError: for a split that the set does not have.

    Example:
        >>> from pathlib import Path
        >>> Path("streamed/data").mkdir(parents=True)
        >>> size = dataset.to_parquet("streamed/data/test-00000-of-00001.parquet")
        >>> next(iter(stream_part(Part("streamed", split="test"))))["label"]
        0
    """
    builder = builder_of_set(part)
    _check_files(builder, part)
    with part.named_errors():
        return builder.as_streaming_dataset(split=part.split)


def load_without_images(part: Part) -> datasets.Dataset | None:
    """Loads a split of parquet files without its images, which [`with_images`] reads for the rows that need them.

    All rows are there, so that they can be counted, and their labels checked.

    Returns:
        `datasets.Dataset`, *optional*: The columns of the set, images being `None`, and two columns that say where
            the images are; `None` for sets of other formats, and those that are in the cache of `datasets` already.

    Raises:
        ValueError: for a split that the set does not have.
    """
    builder = builder_of(part)
    if not isinstance(builder, Parquet) or os.path.exists(builder.cache_dir) or part.split == "all":
        return None
    _check_files(builder, part)
    with part.named_errors():
        return rows_without_images(_files(builder, part), part.split, builder.info.features)


# ---- Files of a split ----


def _check_files(builder: datasets.DatasetBuilder, part: Part) -> None:
    """Raises `ValueError` for files that are not whole or not all there. Images are looked at one by one."""
    if isinstance(builder, FolderBasedBuilder) or not builder.config.data_files:
        return
    files = [file for paths in _files(builder, part).values() for file in paths]
    check_local_files(files)
    if builder.name in ("webdataset", "text") and not part.names_files:
        with part.named_errors():
            check_shards(files)


def _files(builder: datasets.DatasetBuilder, part: Part) -> dict[str, list[str]]:
    """The files of each split, as far as the set has it."""
    files = builder.config.data_files or {}
    names = list(files) if part.split == "all" else part.splits
    return {name: list(map(str, files[name])) for name in names if name in files}
