"""How a command ends when what it was passed cannot work, or when it is stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping

# What is raised with a message for people. Others are bugs, of which the traceback is wanted.
FAILURES = (OSError, ValueError, ImportError, RuntimeError, FloatingPointError)
EXPECTED = (*FAILURES, TypeError)
BUGS = (NotImplementedError, RecursionError)
TRACEBACK = "PMGAFT_TRACEBACK"


@contextlib.contextmanager
def one_line_errors(expected: tuple[type[Exception], ...] = EXPECTED) -> Iterator[None]:
    """Ends the process with `error: ...` on stderr and exit code 1, without a traceback; after Ctrl-C with code 130.

    It stands around what can fail because of what was passed, as a `with` block or as a decorator. With
    `PMGAFT_TRACEBACK=1` the traceback is shown.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        is_expected = isinstance(error, expected) and not isinstance(error, BUGS)
        of_data = type(error).__module__.partition(".")[0] == "datasets"
        _tell_launcher(error)
        if not (is_expected or of_data) or os.environ.get(TRACEBACK, "0") not in ("", "0"):
            raise
        sys.exit(f"error: {_message(error)}")


def without_traceback(error: BaseException) -> str:
    """The message of an error; of one that a loader's worker passes on with its traceback, the last line alone.

    Example:
        >>> text = "Caught ValueError in worker 0.\\nOriginal Traceback:\\n  ...\\nValueError: Row 3 is bad."
        >>> without_traceback(ValueError(text))
        'Row 3 is bad.'
    """
    text = str(error)
    if "Original Traceback" not in text:
        return text
    last = text.strip().splitlines()[-1]
    return last.removeprefix(f"{type(error).__name__}: ")


def _message(error: Exception) -> str:
    text = without_traceback(error) or type(error).__name__
    if isinstance(error, (OSError, ValueError, ImportError, FloatingPointError)):
        return text
    return f"{text} ({type(error).__name__}; {TRACEBACK}=1 shows where)"


def _tell_launcher(error: Exception) -> None:
    """Leaves the message for `pmgaft train --num_processes`, which says it last, after what the processes said."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


@contextlib.contextmanager
def flags_named(what: str, flags: Mapping[str, str]) -> Iterator[None]:
    """Adds to a `ValueError` which flags set the arguments that its message names.

    Args:
        what (`str`): What was read, such as the name of a set.
        flags (`dict[str, str]`): The flag of each argument.

    Example:
        >>> with flags_named("food", {"class_names": "--eval_class_names"}):
        ...     raise ValueError("There are no names. Pass `class_names`.")
        Traceback (most recent call last):
        ValueError: There are no names. Pass `class_names`. For food that is --eval_class_names.
    """
    try:
        yield
    except ValueError as error:
        # A flag holds the name of its argument.
        words = re.sub(r"--\w+", "", str(error))
        named = [flag for argument, flag in flags.items() if re.search(rf"\b{argument}\b", words)]
        if not named:
            raise
        verb = "that is" if len(named) == 1 else "these are"
        raise ValueError(f"{error} For {what} {verb} {', '.join(named)}.") from error
