"""Shards in the layout of CLIP benchmark: `0.tar`, `1.tar`, ... for each split, and a text that counts them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .parquet_rows import read_file

COUNT = "nshards.txt"


def check_shards(files: Iterable[str]) -> None:
    """Raises `ValueError` where a folder has other shards than its `nshards.txt` counts, which may not be there.

    Args:
        files (`Iterable[str]`): The shards of a split, on this disk or the Hub.

    Example:
        >>> from pathlib import Path
        >>> Path("test").mkdir()
        >>> size = Path("test/nshards.txt").write_text("2")
        >>> check_shards(["test/1.tar"])
        Traceback (most recent call last):
        ValueError: test/nshards.txt counts 2 shards from 0.tar on, but 0.tar is missing
    """
    names_by_folder: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if "://" in folder and not folder.startswith("hf://"):  # an address lists no folder
            continue
        if name.endswith(".tar") or name == COUNT:
            names_by_folder.setdefault(folder, set()).add(name)

    for folder, names in names_by_folder.items():
        count = _count_of(folder)
        if count is None:
            continue
        counted = [f"{number}.tar" for number in range(count)]
        missing = [name for name in counted if name not in names]
        others = sorted(names - {COUNT, *counted})
        if missing or others:
            problem = f"{missing[0]} is missing" if missing else f"{others[0]} is there too"
            raise ValueError(f"{_short(folder)} counts {count} shards from 0.tar on, but {problem}")


def _count_of(folder: str) -> int | None:
    """The number of shards that a folder should have; `None` if it does not say."""
    try:
        text = read_file(os.path.join(folder, COUNT)).strip()
    except FileNotFoundError:
        return None
    if not text.isdigit():
        raise ValueError(f"{_short(folder)} holds {text[:20]!r} in place of a number of shards")
    return int(text)


def _short(folder: str) -> str:
    """How messages call the text of a folder."""
    return f"{os.path.basename(folder)}/{COUNT}"
