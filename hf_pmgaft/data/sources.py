"""Where rows come from: the Hub, folders, parquet, CSV, webdataset shards and saved sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from .columns import IMAGE_COLUMNS, column_names

# By suffix, the builder of `datasets` and its options; a class may be called "null", which is no missing value.
BUILDERS = {".parquet": ("parquet", {}), ".tar": ("webdataset", {}), ".csv": ("csv", {"keep_default_na": False})}


def load_images(
    name: str,
    config: str | None = None,
    split: str = "train",
    streaming: bool = False,
    revision: str | None = None,
    data_files: str | None = None,
):
    """Loads a set of images with labels, captions or both.

    Args:
        name (`str`): Hub id, ImageFolder, folder of a Hub-format set, `save_to_disk` folder, webdataset folder of
            `.tar` shards, or a single parquet, `.tar` or CSV file; paths in a CSV file start at its folder.
        config (`str`, *optional*): Name of the set's configuration.
        split (`str`): Name of the split, or several joined by `+`.
        streaming (`bool`): Whether to read while training instead of before.
        revision (`str`, *optional*): Branch, tag or commit of a set on the Hub.
        data_files (`str`, *optional*): File or pattern of those in the repository or folder that make up the set.
    """
    path = Path(name)
    if path.is_file():
        if path.suffix not in BUILDERS:
            raise ValueError(
                f"{name} is no parquet file, shard or CSV file. Pass one, a folder or the name of a set on the Hub."
            )
        builder, options = BUILDERS[path.suffix]
        files = {split.partition("[")[0]: name}
        loaded = datasets.load_dataset(builder, data_files=files, split=split, streaming=streaming, **options)
        return resolve_paths(loaded, path.resolve().parent) if builder == "csv" else loaded
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        loaded = datasets.load_from_disk(name)
        if isinstance(loaded, datasets.DatasetDict):
            missing = [part for part in split.split("+") if part not in loaded]
            if missing:
                raise ValueError(f"{name} has no split {missing[0]!r}. It has: {sorted(loaded)}.")
            loaded = datasets.concatenate_datasets([loaded[part] for part in split.split("+")])
        return loaded.to_iterable_dataset() if streaming else loaded
    # img2dataset writes a table beside each shard, which would be taken for the set.
    beside = any(path.glob("*.tar")) and any(path.glob("*.parquet")) and not (path / "README.md").exists()
    shards = {"data_files": data_files or "*.tar"} if beside or data_files else {}
    return datasets.load_dataset(name, config, split=split, streaming=streaming, revision=revision, **shards)


def resolve_paths(dataset: Any, folder: Path) -> Any:
    """Lets paths in a table start at `folder`: in the usual image columns, and where the first row names a file."""
    column_names(dataset)  # which refuses a table without rows
    first = next(iter(dataset))
    texts = {column: value for column, value in first.items() if isinstance(value, str)}
    columns = [c for c, value in texts.items() if c in IMAGE_COLUMNS or os.path.isfile(folder / value)]
    return dataset.map(partial(_beside, folder=folder, columns=columns))


def _beside(row: dict[str, Any], folder: Path, columns: Sequence[str]) -> dict[str, str]:
    return {column: row[column] if "://" in row[column] else str(folder / row[column]) for column in columns}


def parse_set(text: str, default_split: str = "test") -> tuple[str, str | None, str]:
    """`name[:config][@split]` -> name, config, split; an existing path is a name, whatever is in it."""
    if Path(text).exists():
        return text, None, default_split
    rest, _, split = text.partition("@")
    name, _, config = rest.partition(":")
    return name, config or None, split or default_split
