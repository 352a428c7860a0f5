"""Weights in files that others can read: safetensors writes them under a private mode, which is taken back here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


def save_tensors(
    tensors: Mapping[str, torch.Tensor], file: str | os.PathLike, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as safetensors, into a file that others can read.

    Example:
        >>> save_tensors({"weight": torch.zeros(2)}, "weights.safetensors")
    """
    save_file(dict(tensors), file, metadata=None if metadata is None else dict(metadata))
    make_readable(file)


def make_readable(path: str | os.PathLike) -> None:
    """Gives a safetensors file, or those in a folder, the permissions of every other new file.

    Example:
        >>> from pathlib import Path
        >>> file = Path("weights.safetensors")
        >>> file.touch(mode=0o600)
        >>> make_readable(file)
        >>> oct(file.stat().st_mode & 0o444)
        '0o444'
    """
    path = Path(path)
    files = path.glob("*.safetensors") if path.is_dir() else [path]

    # The mask can only be asked for by setting it.
    mask = os.umask(0)
    os.umask(mask)
    for file in files:
        file.chmod(0o666 & ~mask)
