"""The one folder that a page's uploads and pictures lie in, which is gone when the page is."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows, where an abandoned folder is known by its process alone
    fcntl = None  # type: ignore[assignment]

PREFIX = "pmgaft-demo-"
LOCK = ".lock"
PLACE = "GRADIO_TEMP_DIR"  # where Gradio puts what is uploaded, and what it serves


@contextlib.contextmanager
def upload_folder() -> Iterator[Path]:
    """Makes a folder that this user alone can read, tells Gradio of it, and removes it at the end.

    What pages left that were killed is removed first.

    Example:
        >>> with upload_folder() as folder:
        ...     oct(folder.stat().st_mode & 0o777), os.environ["GRADIO_TEMP_DIR"] == str(folder)
        ('0o700', True)
        >>> folder.exists()
        False
    """
    remove_abandoned_folders()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
    lock = open(folder / LOCK, "w")
    _take(lock)
    before = os.environ.get(PLACE)
    os.environ[PLACE] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            os.environ.pop(PLACE, None)
        else:
            os.environ[PLACE] = before
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_folders() -> list[Path]:
    """Removes the folders of pages whose process was killed, as far as they are this user's.

    Returns:
        `list[Path]`: What was removed.

    Example:
        >>> with upload_folder() as folder:
        ...     folder in remove_abandoned_folders()
        False
    """
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed


def _is_abandoned(folder: Path) -> bool:
    """Whether no process uses a folder: its own does not run, and nobody holds its lock."""
    match = re.fullmatch(rf"{PREFIX}(\d+)-\w+", folder.name)
    if match is None or folder.is_symlink() or not folder.is_dir():
        return False
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        return False
    # In a container that was started again, an old folder has the number of the new process.
    number = int(match[1])
    if number != os.getpid() and _runs(number):
        return False
    try:
        with open(folder / LOCK) as lock:
            return _take(lock)
    except OSError:
        return number != os.getpid()


def _take(lock: TextIO) -> bool:
    """Locks a file, if nobody holds it, until it is closed or its process ends, however it ends."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
