"""Some columns of all rows of parquet files, and all columns of some rows, on the disk or the Hub."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import table_cast

from ..fingerprints import digest_of_list

# Columns beside the set's own, by which the image of a row is found.
FILE, ROW = "_file", "_row"
NUM_THREADS = 16


def rows_without_images(
    files: Mapping[str, Sequence[str]], split: str, features: datasets.Features | None = None
) -> datasets.Dataset | None:
    """Reads all columns of a split but for images, which are `None`, and adds where the image of each row is.

    Args:
        files (`dict[str, list[str]]`): Parquet files of each split.
        split (`str`): Such as `train[:10%]+test`.
        features (`datasets.Features`, *optional*): Those that the files state if not given.

    Returns:
        `datasets.Dataset`, *optional*: `None` for files without images.

    Example:
        >>> size = dataset.to_parquet("shapes.parquet")
        >>> rows = rows_without_images({"train": ["shapes.parquet"]}, "train[:4]")
        >>> rows[3]["label"], rows[3]["image"], rows[3]["_row"]
        (3, None, 3)
    """
    features = features or _features_of(next(iter(files.values()))[0])
    images = [column for column, feature in features.items() if _holds_files(feature)]
    if not images:
        return None

    others = [column for column in features if column not in images]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        tables = {
            name: pa.concat_tables(pool.map(lambda file: _read_columns(file, others), part))
            for name, part in files.items()
        }
    sizes = {name: table.num_rows for name, table in tables.items()}
    slices = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    table = pa.concat_tables([tables[part.splitname].slice(part.from_, part.to - part.from_) for part in slices])

    for column in images:
        field = features.arrow_schema.field(column)
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    features = datasets.Features({**features, FILE: datasets.Value("string"), ROW: datasets.Value("int64")})
    table = table_cast(table.select(list(features)), features.arrow_schema)
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features), split=datasets.NamedSplit(split))


def with_images(images: datasets.Dataset, rows: Sequence[int]) -> datasets.Dataset:
    """Reads the images of some rows of what [`rows_without_images`] gave; those of all others stay `None`.

    Whatever rows have been chosen and labels changed since: each row knows where its image is. Of the Hub's files the
    row groups that hold them are read, once: they are kept in the cache of `datasets`.

    Args:
        images (`datasets.Dataset`): Any other set comes back as it is.
        rows (`list[int]`): Rows of `images`.

    Example:
        >>> size = dataset.to_parquet("food.parquet")
        >>> rows = rows_without_images({"train": ["food.parquet"]}, "train")
        >>> [image is None for image in with_images(rows, [2, 0])[:4]["image"]]
        [False, True, False, True]
    """
    if FILE not in images.column_names:
        return images
    features = datasets.Features(
        {column: feature for column, feature in images.features.items() if column not in (FILE, ROW)}
    )
    columns = [column for column, feature in features.items() if _holds_files(feature)]
    plain = images.with_format(None)
    where = plain.select_columns([FILE, ROW]).select(rows)
    files, places = where[FILE][:], where[ROW][:]

    table = _kept(files, places, columns, features)
    position = dict(zip(rows, range(len(rows)), strict=True))
    taken = pa.array([position.get(row) for row in range(len(images))], pa.int64())

    others = plain.remove_columns([FILE, ROW, *columns]).flatten_indices().data.table
    merged = pa.table(
        {column: table[column].take(taken) if column in columns else others[column] for column in features}
    )
    merged = table_cast(merged, features.arrow_schema)
    return datasets.Dataset(merged, info=datasets.DatasetInfo(features=features), split=images.split)


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


def size_of(file: str) -> int:
    """The bytes of a file."""
    filesystem, path = _place(file)
    return filesystem.size(path)


def read_file(file: str) -> bytes:
    """The content of a small file.

    Raises:
        FileNotFoundError: if it is not there.
    """
    filesystem, path = _place(file)
    return filesystem.cat_file(path)


def num_rows(file: str) -> int:
    """The rows of a parquet file, by its footer."""
    with _open(file) as opened:
        return pq.read_metadata(opened).num_rows


def _features_of(file: str) -> datasets.Features:
    with _open(file) as opened:
        return datasets.Features.from_arrow_schema(pq.read_schema(opened))


def _read_columns(file: str, columns: list[str]) -> pa.Table:
    """Some columns of a file, and where each row stands."""
    with _open(file) as opened:
        parquet = pq.ParquetFile(opened)
        count = parquet.metadata.num_rows
        table = parquet.read(columns)
    values = {column: table[column] for column in columns}
    return pa.table({**values, FILE: pa.repeat(file, count), ROW: pa.array(range(count), pa.int64())})


def _read_rows(file: str, rows: Sequence[int], columns: list[str]) -> pa.Table:
    """Some rows of a file, in this order, from the row groups that hold them."""
    tables, order, start = [], [], 0
    with _open(file) as opened:
        parquet = pq.ParquetFile(opened, pre_buffer=True)
        for group in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(group).num_rows
            inside = sorted({row for row in rows if start <= row < end})
            if inside:
                tables.append(parquet.read_row_group(group, columns).take([row - start for row in inside]))
                order += inside
            start = end
    place_of = {row: place for place, row in enumerate(order)}
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
