"""Files that others can read: safetensors are written under a private mode, which this takes back."""

from __future__ import annotations

import os
from pathlib import Path


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
