"""What a split needs of a set and no more: its own files and, of parquet files, the images of some rows.

`datasets` downloads and parses all splits of a configuration to load one of them.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.arrow_reader import ArrowReader
from datasets.data_files import DataFilesDict
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import table_cast

from ..fingerprints import digest_of_list
from .source_errors import named_errors

# Columns beside the set's own, by which the image of a row is found.
FILE, ROW = "_file", "_row"
NUM_THREADS = 16


class SplitSize(NamedTuple):
    """What a split takes: bytes of its files, and rows where they can be told without reading them."""

    num_bytes: int
    num_rows: int | None


def split_names(split: str) -> list[str]:
    """Lists the splits that a text names.

    Example:
        >>> split_names("train[:10%]+test")
        ['train', 'test']
    """
    return [re.sub(r"\[.*", "", part).strip() for part in split.split("+")]


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
    builder = _builder_of_split(name, config, split, revision, data_files)
    if builder is None:
        return _from_cache(name, config, split)
    with named_errors(name, config, split):
        builder.download_and_prepare()
        return builder.as_dataset(split=split)


def load_without_images(
    name: str,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    data_files: str | None = None,
) -> datasets.Dataset | None:
    """Loads a split of parquet files without its images, which [`with_images`] reads for the rows that need them.

    All rows are there, so that they can be counted, and their labels checked.

    Args:
        name, config, split, revision, data_files: See [`load_images`].

    Returns:
        `datasets.Dataset`, *optional*: The columns of the set, images being `None`, and two columns that say where
            the images are; `None` for sets of other formats, and those that are in the cache of `datasets` already.

    Raises:
        ValueError: for a split that the set does not have.
    """
    builder = _builder_of_split(name, config, split, revision, data_files)
    if not isinstance(builder, Parquet) or os.path.exists(builder.cache_dir):
        return None
    files = {key: list(map(str, builder.config.data_files[key])) for key in dict.fromkeys(split_names(split))}
    with named_errors(name, config, split):
        features = builder.info.features or _features_of(files[split_names(split)[0]][0])
    images = [column for column, feature in features.items() if _holds_files(feature)]
    if not images:
        return None

    others = [column for column in features if column not in images]
    with named_errors(name, config, split), ThreadPoolExecutor(NUM_THREADS) as pool:
        read = {key: list(pool.map(lambda file: _read_columns(file, others), files[key])) for key in files}
    tables = {key: pa.concat_tables(read[key]) for key in files}

    # A part of a split, such as train[:10%]
    sizes = {key: table.num_rows for key, table in tables.items()}
    slices = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    table = pa.concat_tables(tables[part.splitname].slice(part.from_, part.to - part.from_) for part in slices)

    for column in images:
        field = features.arrow_schema.field(column)
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    features = datasets.Features({**features, FILE: datasets.Value("string"), ROW: datasets.Value("int64")})
    table = table_cast(table.select(list(features)), features.arrow_schema)
    info = datasets.DatasetInfo(features=features)
    return datasets.Dataset(table, info=info, split=datasets.NamedSplit(split))


def with_images(images: datasets.Dataset, rows: Sequence[int]) -> datasets.Dataset:
    """Reads the images of some rows of what [`load_without_images`] gave; those of all others stay `None`.

    Whatever rows have been chosen and labels changed since: each row knows where its image is. Of the Hub's files the
    row groups that hold them are read, once: they are kept in the cache of `datasets`.

    Args:
        images (`datasets.Dataset`): Any other set comes back as it is.
        rows (`list[int]`): Rows of `images`.
    """
    if FILE not in images.column_names:
        return images
    features = datasets.Features(
        {column: feature for column, feature in images.features.items() if column not in (FILE, ROW)}
    )
    columns = [column for column, feature in features.items() if _holds_files(feature)]
    plain = images.with_format(None)
    where = plain.select_columns([FILE, ROW]).select(rows)
    files, places = list(where[FILE]), list(where[ROW])

    table = _kept(files, places, columns, features)
    position = dict(zip(rows, range(len(rows)), strict=True))
    taken = pa.array([position.get(row) for row in range(len(images))], pa.int64())

    whole = plain.remove_columns([FILE, ROW, *columns]).flatten_indices()
    merged = whole.data.table if columns == list(features) else whole.data.table
    for column in columns:
        merged = merged.append_column(features.arrow_schema.field(column), table[column].take(taken))
    merged = table_cast(merged.select(list(features)), features.arrow_schema)
    return datasets.Dataset(merged, info=datasets.DatasetInfo(features=features), split=images.split)


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
    builder = _builder_of_split(name, config, split, revision, data_files)
    if builder is None:
        kept = _from_cache(name, config, split)
        return SplitSize(0, kept.num_rows)

    keys = list(dict.fromkeys(split_names(split)))
    files = {key: list(map(str, builder.config.data_files[key])) for key in keys}
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        num_bytes = sum(pool.map(_size_of, [file for key in keys for file in files[key]]))
        if isinstance(builder, Parquet):
            rows = {key: sum(pool.map(_num_rows, files[key])) for key in keys}
        else:
            stated = builder.info.splits or {}
            rows = {key: stated[key].num_examples for key in keys if key in stated and stated[key].num_examples}
    if len(rows) < len(keys):
        return SplitSize(num_bytes, None)
    slices = datasets.ReadInstruction.from_spec(split).to_absolute(rows)
    return SplitSize(num_bytes, sum(part.to - part.from_ for part in slices))


# ---- Files of a split ----


def _builder_of_split(
    name: str, config: str | None, split: str, revision: str | None, data_files: str | None
) -> datasets.DatasetBuilder | None:
    """What makes the split of its files; of the whole set where that is in the cache, or must be read for labels.

    `None` where only the cache has the set.
    """
    try:
        with named_errors(name, config):
            builder = datasets.load_dataset_builder(name, config, revision=revision, data_files=data_files or None)
    except (ConnectionError, ValueError):
        if not datasets.config.HF_HUB_OFFLINE or _cached_folder(name, config, split) is None:
            raise
        return None
    files = builder.config.data_files
    if not files:
        return builder if _has_splits(builder, split) or _cached_folder(name, config, split) is None else None

    wanted = list(dict.fromkeys(split_names(split)))
    if wanted == ["all"]:
        return builder
    missing = [key for key in wanted if key not in files]
    if missing:
        raise ValueError(f"{name} has no split {missing[0]!r}. It has: {list(files)}.")
    if set(wanted) == set(files) or os.path.exists(builder.cache_dir):
        return builder

    options = {}
    if isinstance(builder, FolderBasedBuilder):
        options = _labels_of_all_splits(builder)
        if options is None:
            return builder
    info = copy.deepcopy(builder.info)
    info.download_size = info.dataset_size = info.download_checksums = None
    if info.splits is not None:
        info.splits = datasets.SplitDict({key: value for key, value in info.splits.items() if key in wanted})
    return type(builder)(
        dataset_name=builder.dataset_name,
        config_name=builder.config.name,
        config_id=None if builder.repo_id is None or data_files else _config_id(builder.config.name, wanted),
        hash=builder.hash,
        base_path=builder.base_path,
        repo_id=builder.repo_id,
        info=info,
        data_files=DataFilesDict({key: files[key] for key in wanted}),
        **options,
    )


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


def _config_id(config: str, splits: Sequence[str]) -> str:
    """How the cache calls a part of a configuration."""
    return f"{config}-only-{'-'.join(splits)}"


def _cached_folder(name: str, config: str | None, split: str) -> Path | None:
    """The newest folder of the cache that holds a split of a set on the Hub, if there is one."""
    parts = name.split("/")
    parts[-1] = datasets.naming.camelcase_to_snakecase(parts[-1])
    root = Path(datasets.config.HF_DATASETS_CACHE) / "___".join(parts)
    pattern = _config_id(config or "*", list(dict.fromkeys(split_names(split))))
    found = [path.parent for path in root.glob(f"{pattern}/*/*/dataset_info.json")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _from_cache(name: str, config: str | None, split: str) -> datasets.Dataset:
    """The split as it was loaded before."""
    folder = _cached_folder(name, config, split)
    info = datasets.DatasetInfo.from_directory(str(folder))
    reader = ArrowReader(str(folder), info)
    splits = list(info.splits.values())
    return datasets.Dataset(**reader.read(name=info.dataset_name, instructions=split, split_infos=splits))


def _has_splits(builder: datasets.DatasetBuilder, split: str) -> bool:
    """Whether a set that is taken from the cache has the splits that are asked for."""
    return set(split_names(split)) <= set(builder.info.splits or ())


# ---- Rows of parquet files ----


def _holds_files(feature: Any) -> bool:
    """Whether a column holds images, or other files that are not small."""
    if isinstance(feature, (datasets.Image, datasets.Audio)):
        return True
    inner = getattr(feature, "feature", None)
    return inner is not None and _holds_files(inner) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _place(file: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a file, and its path there."""
    options = {"endpoint": datasets.config.HF_ENDPOINT} if file.startswith("hf://") else {}
    return fsspec.core.url_to_fs(file, **options)


def _open(file: str) -> Any:
    """A file of the disk or the Hub, of which the ranges that are asked for are read and no more."""
    filesystem, path = _place(file)
    if "://" not in file:
        return filesystem.open(path, "rb")
    return filesystem.open(path, "rb", cache_type="none")


def _size_of(file: str) -> int:
    filesystem, path = _place(file)
    return filesystem.size(path)


def _num_rows(file: str) -> int:
    with _open(file) as opened:
        return pq.read_metadata(opened).num_rows


def _features_of(file: str) -> datasets.Features:
    with _open(file) as opened:
        return datasets.Features.from_arrow_schema(pq.read_schema(opened))


def _read_columns(file: str, columns: list[str]) -> pa.Table:
    """Some columns of a file, and where each row stands."""
    with _open(file) as opened:
        parquet = pq.ParquetFile(opened)
        num_rows = parquet.metadata.num_rows
        table = parquet.read(columns) if columns else pa.table({})
    table = table.replace_schema_metadata(None)
    table = table.append_column(FILE, pa.array([file]).take(pa.nulls(num_rows, pa.int64()).fill_null(0)))
    return table.append_column(ROW, pa.array(range(num_rows), pa.int64()))


def _read_rows(file: str, rows: Sequence[int], columns: list[str]) -> pa.Table:
    """Some rows of a file, in this order, from the row groups that hold them."""
    with _open(file) as opened:
        parquet = pq.ParquetFile(opened, pre_buffer=True)
        ends, end = [], 0
        for group in range(parquet.metadata.num_row_groups):
            end += parquet.metadata.row_group(group).num_rows
            ends.append(end)
        tables, place_of = [], {}
        total, start = 0, 0
        for group, end in enumerate(ends):
            inside = sorted({row for row in rows if start <= row < end})
            if inside:
                table = parquet.read_row_group(group, columns=columns)
                tables.append(table.take([row - start for row in inside]))
                place_of.update((row, total + i) for i, row in enumerate(inside))
                total += len(inside)
            start = end
    return pa.concat_tables(tables).replace_schema_metadata(None).take([place_of[row] for row in rows])


def _kept(files: list[str], rows: list[int], columns: list[str], features: datasets.Features) -> pa.Table:
    """Those columns of the rows of some files; rows of the Hub's files from the cache, once they are there."""
    key = digest_of_list([*zip(files, rows, strict=True), *columns])
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_pmgaft_rows" / key
    is_remote = any("://" in file for file in files)
    if is_remote and folder.is_dir():
        return datasets.load_from_disk(str(folder)).with_format(None).data.table

    by_file: dict[str, list[int]] = {}
    for number, file in enumerate(files):
        by_file.setdefault(file, []).append(number)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        tables = list(pool.map(lambda file: _read_rows(file, [rows[i] for i in by_file[file]], columns), by_file))

    # In the order that was asked for
    order = [number for numbers in by_file.values() for number in numbers]
    place_of = {number: place for place, number in enumerate(order)}
    features = datasets.Features({column: features[column] for column in columns})
    table = pa.concat_tables(tables).take([place_of[number] for number in range(len(rows))])
    table = table_cast(table.select(columns), features.arrow_schema)
    if is_remote:
        part = folder.with_name(f"{key}.{uuid.uuid4().hex}.part")
        datasets.Dataset(table, info=datasets.DatasetInfo(features=features)).save_to_disk(str(part))
        try:
            part.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(part, ignore_errors=True)
    return table
