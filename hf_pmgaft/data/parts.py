"""What a split needs of a set and no more: its own files and, of parquet files, the images of some rows.

`datasets` downloads and parses all splits of a configuration to load one of them.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets.arrow_reader import ArrowReader
from datasets.data_files import DataFilesDict
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
from datasets.packaged_modules.parquet.parquet import Parquet

from .local_files import check_local_files
from .parquet_rows import NUM_THREADS, num_rows, rows_without_images, size_of
from .shards import check_shards
from .source_errors import FOREIGN, named_errors

# What `datasets` says of a set whose splits seem to have unlike formats, and where the cache has another split of it.
SIGNS_OF_UNLIKE_SPLITS = ("Couldn't infer the same data file format", "Couldn't find cache for")


class SplitSize(NamedTuple):
    """What a split takes: bytes of its files, and rows where they can be told without reading them.

    Example:
        >>> SplitSize(num_bytes=5000, num_rows=None)
        SplitSize(num_bytes=5000, num_rows=None)
    """

    num_bytes: int
    num_rows: int | None


def split_names(split: str) -> list[str]:
    """Lists the splits that a text names.

    Example:
        >>> split_names("train[:10%]+test")
        ['train', 'test']
    """
    return [re.sub(r"\[.*", "", part).strip() for part in split.split("+")]


@dataclass(frozen=True)
class Part:
    """What is read of a set: one split of one configuration, or several joined by `+`.

    Attributes:
        name, config, split, revision, data_files: See [`load_images`].

    Example:
        >>> Part("user/shapes", split="train[:10%]+test").splits
        ['train', 'test']
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    data_files: str | None = None

    @property
    def splits(self) -> list[str]:
        """The names of its splits, each once."""
        return list(dict.fromkeys(split_names(self.split)))

    @property
    def names_files(self) -> bool:
        """Whether single files were chosen, so that others may be missing."""
        return bool(self.data_files) and "*" not in self.data_files

    def named_errors(self) -> contextlib.AbstractContextManager[None]:
        """Raises what is raised inside as one line that names the set, its configuration and split."""
        return named_errors(self.name, self.config, self.split)


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
    builder = _builder_of(part)
    if builder is None:
        return SplitSize(0, _from_cache(part).num_rows)

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
    builder = _builder_of(part)
    if builder is None:
        return _from_cache(part)
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
    builder = _builder_of_set(part)
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
    builder = _builder_of(part)
    if not isinstance(builder, Parquet) or os.path.exists(builder.cache_dir) or part.split == "all":
        return None
    _check_files(builder, part)
    with part.named_errors():
        return rows_without_images(_files(builder, part), part.split, builder.info.features)


# ---- Files of a split ----


def _builder_of(part: Part) -> datasets.DatasetBuilder | None:
    """What makes the split of its files; of the whole set where that is in the cache, or must be read for labels.

    `None` where only the cache has the set.
    """
    try:
        builder = _builder_of_set(part)
    except (ConnectionError, ValueError):
        if not datasets.config.HF_HUB_OFFLINE or _cached_folder(part) is None:
            raise
        return None
    files = builder.config.data_files
    if not files:
        return builder if _has_splits(builder, part) or _cached_folder(part) is None else None

    if part.splits == ["all"]:
        return builder
    missing = [key for key in part.splits if key not in files]
    if missing:
        raise ValueError(f"{part.name} has no split {missing[0]!r}. It has: {list(map(str, files))}.")
    if set(part.splits) == set(files) or os.path.exists(builder.cache_dir):
        return builder

    options = {}
    if isinstance(builder, FolderBasedBuilder):
        options = _labels_of_all_splits(builder)
        if options is None:
            return builder
    return _of_splits(builder, part, builder.config.name, **options)


def _of_splits(builder: datasets.DatasetBuilder, part: Part, config: str, **options: Any) -> datasets.DatasetBuilder:
    """A builder of the part's splits alone, which in the cache has a folder of its own under `config`."""
    info = copy.deepcopy(builder.info)
    info.download_size = info.dataset_size = info.download_checksums = None
    if info.splits is not None:
        info.splits = datasets.SplitDict({key: value for key, value in info.splits.items() if key in part.splits})
    return type(builder)(
        dataset_name=builder.dataset_name,
        config_name=builder.config.name,
        config_id=None if builder.repo_id is None or part.data_files else _config_id(config, part),
        hash=builder.hash,
        base_path=builder.base_path,
        repo_id=builder.repo_id,
        info=info,
        data_files=DataFilesDict({key: builder.config.data_files[key] for key in part.splits}),
        **options,
    )


def _builder_of_set(part: Part) -> datasets.DatasetBuilder:
    """What makes all splits of a set of their files.

    In the layout of CLIP benchmark each split has a text beside its shards. Of a split with one shard `datasets` takes
    the text in its place, and refuses the set if another split has more.
    """
    try:
        with named_errors(part.name, part.config):
            builder = datasets.load_dataset_builder(
                part.name, part.config, revision=part.revision, data_files=part.data_files or None
            )
    except (ConnectionError, ValueError) as error:
        shards = None
        if any(sign in str(error) for sign in SIGNS_OF_UNLIKE_SPLITS):
            with contextlib.suppress(*FOREIGN):
                shards = _builder_of_shards(part)
        if shards is None:
            raise
        return shards
    if builder.name == "text":
        return _builder_of_shards(part) or builder
    return builder


def _builder_of_shards(part: Part) -> datasets.DatasetBuilder | None:
    """What makes the splits of the shards `SPLIT/*.tar`, if each has some."""
    if part.data_files:
        return None
    shards = {key: f"{key}/*.tar" for key in part.splits}
    try:
        builder = datasets.load_dataset_builder(part.name, revision=part.revision, data_files=shards)
    except FileNotFoundError:
        return None
    return _of_splits(builder, part, "default")


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


def _labels_of_all_splits(builder: FolderBasedBuilder) -> dict[str, Any] | None:
    """How one split of a folder of images gets the labels that all splits give, by the names of files alone.

    `None` where they stand in archives.
    """
    if builder.config.features is not None or builder.config.drop_labels:
        return {}
    names = [str(file) for files in builder.config.data_files.values() for file in files]
    if any(name.lower().endswith(".zip") for name in names):
        return None
    if any(os.path.basename(name) in builder.METADATA_FILENAMES for name in names):
        return {}
    images = [name for name in names if os.path.splitext(name)[1].lower() in builder.EXTENSIONS]
    labels = {os.path.basename(os.path.dirname(name)) for name in images}
    is_labelled = len(labels) > 1 and len({name.count("/") for name in images}) == 1
    if not (is_labelled or builder.config.drop_labels is False):
        return {"drop_labels": True}
    label = datasets.ClassLabel(names=sorted(labels))
    features = datasets.Features({builder.BASE_COLUMN_NAME: builder.BASE_FEATURE(), "label": label})
    return {"features": features, "drop_labels": False}


# ---- The cache of datasets ----


def _config_id(config: str, part: Part) -> str:
    """How the cache calls a part of a configuration."""
    return f"{config}-only-{'-'.join(part.splits)}"


def _cached_folder(part: Part) -> Path | None:
    """The newest folder of the cache that holds a split of a set on the Hub, if there is one."""
    names = part.name.split("/")
    names[-1] = datasets.naming.camelcase_to_snakecase(names[-1])
    root = Path(datasets.config.HF_DATASETS_CACHE) / "___".join(names)
    folders = [path.parent for path in root.glob(f"{_config_id(part.config or '*', part)}/*/*/dataset_info.json")]
    return max(folders, key=lambda path: path.stat().st_mtime, default=None)


def _from_cache(part: Part) -> datasets.Dataset:
    """The split as it was loaded before."""
    folder = _cached_folder(part)
    info = datasets.DatasetInfo.from_directory(str(folder))
    reader = ArrowReader(str(folder), info)
    splits = list(info.splits.values())
    return datasets.Dataset(**reader.read(name=info.dataset_name, instructions=part.split, split_infos=splits))


def _has_splits(builder: datasets.DatasetBuilder, part: Part) -> bool:
    """Whether a set that is taken from the cache has the splits that are asked for."""
    return set(part.splits) <= set(builder.info.splits or ())
