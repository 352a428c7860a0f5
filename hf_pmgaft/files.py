"""Files that are written: checked before anything is computed, and readable by others afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

# What a write fails with where there is no room: on the disk, in a quota, or under a limit of the shell.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MB = 10**6


def save_tensors(
    tensors: Mapping[str, torch.Tensor], file: str | os.PathLike, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as safetensors, into a file that others can read.

    Example:
        >>> save_tensors({"weight": torch.zeros(2)}, "weights.safetensors")
    """
    with writing_into(Path(file).parent):
        save_file(dict(tensors), file, metadata=None if metadata is None else dict(metadata))
    make_readable(file)


def write_whole(file: str | os.PathLike, text: str) -> None:
    """Writes a text file, whole or not at all: what had its name before stays until then.

    Its folder is made if need be.

    Raises:
        OSError: if it cannot be written.

    Example:
        >>> write_whole("report.json", "{}")
        >>> open("report.json").read(), os.path.exists("report.json.part")
        ('{}', False)
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and not file.is_file():  # such as /dev/stdout, whose place no file takes
        file.write_text(text, encoding="utf-8")
        return
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with writing_into(file.parent):
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing_into(folder: str | os.PathLike) -> Iterator[None]:
    """Says of a disk that is full which folder it is of, and how much is free.

    Raises:
        OSError: in place of what the system, or safetensors, raised; other errors pass.

    Example:
        >>> with writing_into("run"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        OSError: run cannot be written to (No space left on device; ... MB are free). Make room there and run it ...
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _system_error(error)
        if number not in NO_ROOM:
            raise
        raise OSError(
            f"{folder} cannot be written to ({os.strerror(number)}; {free_space(folder)}). Make room there and run "
            "it again; what was written before is kept."
        ) from error


def _system_error(error: Exception) -> int | None:
    """The system's number of an error, which safetensors has in its message alone."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def free_space(folder: str | os.PathLike) -> str:
    """How much is free where a folder is, or is to be, in words.

    Example:
        >>> free_space(".").endswith(" MB are free")
        True
    """
    place = Path(folder).resolve()
    while not place.exists():
        place = place.parent
    return f"{shutil.disk_usage(place).free / MB:,.1f} MB are free"


def make_readable(path: str | os.PathLike) -> None:
    """Gives a safetensors file, or those in a folder and below it, the permissions of every other new file.

    Example:
        >>> from pathlib import Path
        >>> file = Path("weights.safetensors")
        >>> file.touch(mode=0o600)
        >>> make_readable(file)
        >>> oct(file.stat().st_mode & 0o444)
        '0o444'
    """
    path = Path(path)
    files = path.rglob("*.safetensors") if path.is_dir() else [path]  # peft gives an adapter a folder of its own

    # The mask can only be asked for by setting it.
    mask = os.umask(0)
    os.umask(mask)
    for file in files:
        file.chmod(0o666 & ~mask)


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Gives a folder to write into, whose files are moved to where they belong once all of them are there.

    If something is raised before, the folder that was asked for stays as it is, or not there.

    Example:
        >>> with whole_folder("robust") as unfinished:
        ...     _ = (unfinished / "config.json").write_text("{}")
        >>> os.listdir("robust")
        ['config.json']
    """
    folder = Path(folder).resolve()
    # On the disk of the folder, where moving is renaming
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=_nearest_that_is_there(folder)) as name:
        unfinished = Path(name)
        yield unfinished
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(unfinished.rglob("*")):
            target = folder / path.relative_to(unfinished)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                path.replace(target)


@contextlib.contextmanager
def kept_if_used(folder: str | os.PathLike) -> Iterator[None]:
    """Makes a folder if need be, and removes what it made of it if nothing was written there in the end.

    Example:
        >>> with kept_if_used("runs/first"):
        ...     print(os.path.isdir("runs/first"))
        True
        >>> os.path.exists("runs")
        False
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # that it is not empty
            for path in missing:
                path.rmdir()


def check_output_file(name: str, file: str | os.PathLike | None) -> None:
    """Raises `ValueError` if a file cannot be written; its folder need not be there yet. Does nothing for `None`.

    Args:
        name (`str`): What was passed, such as `"--output_file"`.
        file (`str`, *optional*): Where it is to be written.

    Example:
        >>> check_output_file("--output_file", "reports/today/report.json")
        >>> check_output_file("--output_file", ".")
        Traceback (most recent call last):
        ValueError: You passed --output_file ., which is a folder... Pass the name of a file...
    """
    if file is None:
        return
    path = Path(file)
    if os.path.isdir(path) or not path.name or str(file).endswith(os.sep):
        raise ValueError(
            f"You passed {name} {file}, which is a folder, so nothing can be written under this name. Pass the name "
            f"of a file, such as {path / 'report.json'}."
        )
    try:
        _try_to_write_into(path.parent)
        if os.path.exists(path):
            path.open("ab").close()
    except OSError as error:
        raise ValueError(
            f"You passed {name} {file}, which cannot be written ({error.strerror}), so what is computed would be "
            "lost. Pass a place that you may write to."
        ) from error


def check_output_folder(name: str, folder: str | os.PathLike | None) -> None:
    """Raises `ValueError` if no file can be written into a folder, which need not be there yet; nothing for `None`.

    Example:
        >>> check_output_folder("--plots", "pictures/today")
        >>> Path("report.json").touch()
        >>> check_output_folder("--plots", "report.json")
        Traceback (most recent call last):
        ValueError: You passed --plots report.json, which cannot be written to (Not a directory)...
    """
    if folder is None:
        return
    try:
        _try_to_write_into(Path(folder))
    except OSError as error:
        raise ValueError(
            f"You passed {name} {folder}, which cannot be written to ({error.strerror}), so what is computed would "
            "be lost. Pass a folder that you may write to."
        ) from error


def _try_to_write_into(folder: Path) -> None:
    """Raises `OSError` if no file can be written into a folder, or into the one that it will be made in."""
    there = _nearest_that_is_there(folder)
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    with tempfile.TemporaryFile(dir=there):
        pass


def _nearest_that_is_there(path: Path) -> Path:
    """A path itself, or the nearest above it that there is; `OSError` if there can be none of this name."""
    try:
        path.lstat()
    except FileNotFoundError:
        return _nearest_that_is_there(path.parent)
    return path
