"""What goes wrong when a set is opened, in one line that names the set and what to change."""

from __future__ import annotations

import contextlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import yaml
from datasets.exceptions import (
    DataFilesNotFoundError,
    DatasetNotFoundError,
    DatasetsError,
    SplitsVerificationError,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

# What `datasets` and the readers of its formats raise.
FOREIGN = (
    DatasetsError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    pa.ArrowException,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ImportError,
    yaml.YAMLError,
)
LONGEST = 300


@contextlib.contextmanager
def named_errors(name: str, config: str | None = None, split: str | None = None) -> Iterator[None]:
    """Raises what is raised inside as one clear line that names the set.

    Args:
        name (`str`): Hub id, folder or file, as the user wrote it.
        config, split (`str`, *optional*): What of it was asked for.

    Raises:
        ValueError: for what another name, configuration, split or file would mend.
        ConnectionError: for a Hub that is not reached.
        OSError: for a disk that is full, or files that may not be read.

    Example:
        >>> with named_errors("user/shapes"):
        ...     raise RuntimeError("Dataset scripts are no longer supported, but found shapes.py")
        Traceback (most recent call last):
        ValueError: 'user/shapes' is a loading script, which `datasets` no longer runs. Pass its copy in parquet, ...
    """
    try:
        yield
    except FOREIGN as error:
        what = repr(name)
        if config:
            what += f", configuration {config!r}"
        if split:
            what += f", split {split!r}"
        reason = _innermost(error)
        is_offline = isinstance(reason, (ConnectionError, HfHubHTTPError)) or "Couldn't find cache" in str(error)
        if is_offline and not isinstance(error, DatasetNotFoundError):
            raise ConnectionError(
                f"{what} was not reached on the Hub ({_line(reason)}). Try again, or load the set once while the Hub "
                "can be reached: what was loaded is found offline, too."
            ) from error
        is_missing = isinstance(reason, FileNotFoundError) and not _is_of_cache(reason.filename)
        if isinstance(reason, OSError) and reason.errno is not None and not is_missing:
            text = f"{what} cannot be read or kept: {reason.strerror}"
            if _is_of_cache(reason.filename):
                text += "; set HF_HOME or HF_DATASETS_CACHE to a folder that you may write to and that has room"
            raise OSError(reason.errno, text, reason.filename) from error
        raise ValueError(_sentence(name, what, error, reason)) from error


def _sentence(name: str, what: str, error: Exception, reason: BaseException) -> str:
    """The line for an error, by its kind."""
    line = _line(error)

    # Which may not be read
    if "scripts are no longer supported" in line:
        return (
            f"{name!r} is a loading script, which `datasets` no longer runs. Pass its copy in parquet, which many "
            "sets have as revision refs/convert/parquet, or its files."
        )
    if "is a gated dataset" in line:
        return (
            f"{name!r} is gated on the Hub. Accept its terms on its page there, and log in by `hf auth login` or "
            "HF_TOKEN."
        )

    # Which is not there
    if "Revision" in line and "doesn't exist" in line:
        return f"{what} has no such revision: {line}"
    if isinstance(error, HFValidationError) or "Repo id must" in line:
        return (
            f"{name!r} is no file or folder here, and no id of a set on the Hub, such as user/name. Correct the path "
            "or the id."
        )
    if isinstance(error, DatasetNotFoundError) or "Couldn't find any data file at" in line:
        return (
            f"{name!r} is no file or folder here, and on the Hub it does not exist or is private. Correct the name, "
            "or log in by `hf auth login`."
        )

    # Of which that part is not there
    if isinstance(error, DataFilesNotFoundError) or type(error).__name__ == "EmptyDatasetError":
        return f"{name!r} holds no images, parquet, CSV or .tar files that make a set. Pass another."
    if "BuilderConfig" in line and "not found" in line:
        return f"{what} has no such configuration. {line}"
    if "Config name is missing" in str(error):
        available = str(error).partition("configs:")[2].splitlines()[0].strip()
        return f"{name!r} has several configurations, and none was named. Write {name}:CONFIG with one of {available}."

    # Whose files do not hold what they should
    if isinstance(error, SplitsVerificationError):
        return (
            f"{what} has other splits or other numbers of rows than its card states ({line}). Pass a revision whose "
            "card is right, or its files."
        )
    if "don't share the same prefix or the same types" in line:
        return (
            f"{what} has samples of different files. The files of a sample follow each other, are called alike up to "
            "their first dot and end alike in every sample, such as 0.jpg and 0.cls. Pack the shards so."
        )
    if "Must pass at least one table" in line:
        return f"{what} has no rows, so there is nothing in it to use. Pass another set or split."
    if isinstance(error, zipfile.BadZipFile):
        line = f"{line}; where Git LFS was left out, run `git lfs pull`"
        return f"{what} cannot be read ({line}). Correct its files, or pass another set or split."

    return f"{what} cannot be read ({_line(reason)}). Correct its files, or pass another set or split."


def _is_of_cache(name: object) -> bool:
    """Whether a path lies in the cache of `datasets`, or is a folder that should hold it."""
    if not isinstance(name, str):
        return False
    cache, path = Path(datasets.config.HF_DATASETS_CACHE), Path(name)
    return path.is_relative_to(cache) or cache.is_relative_to(path)


def _innermost(error: BaseException) -> BaseException:
    """What an error was raised from, at the end of the chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    """The message of an error as one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
