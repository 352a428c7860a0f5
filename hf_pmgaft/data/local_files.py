"""Files of a set on this disk, looked at before they are read: what was never downloaded, and what was cut off."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# How a file begins that Git LFS has left in place of the content, and how long such a file is at most.
LFS_MARK = b"version https://git-lfs.github.com/spec/"
LONGEST_POINTER = 1024
TAR_BLOCK = 512


def is_lfs_pointer(content: bytes) -> bool:
    """Whether the content of a file only says where Git LFS keeps it.

    Example:
        >>> is_lfs_pointer(b"version https://git-lfs.github.com/spec/v1\\noid sha256:4d7a21\\nsize 12345\\n")
        True
    """
    return content.startswith(LFS_MARK) and len(content) <= LONGEST_POINTER


def check_local_files(files: Iterable[str]) -> None:
    """Raises `ValueError` for a pointer of Git LFS in place of a file, and for a shard without its end.

    A shard that was cut off between two of its files looks like a smaller one. Of other files, and of addresses such
    as `hf://...`, nothing is asked.

    Example:
        >>> size = Path("train.parquet").write_text("version https://git-lfs.github.com/spec/v1")
        >>> check_local_files(["train.parquet"])
        Traceback (most recent call last):
        ValueError: 'train.parquet' only says where Git LFS keeps the file. Run `git lfs pull` in its folder, ...
    """
    for name in files:
        path = Path(name)
        if "://" in name or not path.is_file():
            continue
        size = path.stat().st_size
        if size <= LONGEST_POINTER and is_lfs_pointer(path.read_bytes()):
            raise ValueError(
                f"{name!r} only says where Git LFS keeps the file. Run `git lfs pull` in its folder, or download it "
                "again by `hf download`."
            )
        if path.suffix.lower() == ".tar" and _is_cut_off(path, size):
            raise ValueError(
                f"{name!r} has no end, so it was cut off and samples are missing. Copy or download it again."
            )


def _is_cut_off(shard: Path, size: int) -> bool:
    """Whether a tar file, which ends with blocks of zeros, ends with something else."""
    with shard.open("rb") as file:
        begin = file.read(TAR_BLOCK)
        if begin[257:262] != b"ustar":  # compressed, or none at all: whoever reads it says so
            return False
        file.seek(-min(size, TAR_BLOCK), 2)
        return any(file.read())
