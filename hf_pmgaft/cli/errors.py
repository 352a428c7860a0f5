"""How a command ends when what it was passed cannot work, or when it is stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping

from ..signals import Terminated, catching_signals, raise_stop

# What is raised with a message for people. Others are bugs, of which the traceback is wanted.
FAILURES = (OSError, ValueError, ImportError, RuntimeError, FloatingPointError)
EXPECTED = (*FAILURES, TypeError)
BUGS = (NotImplementedError, RecursionError)
TRACEBACK = "PMGAFT_TRACEBACK"


@contextlib.contextmanager
def one_line_errors(expected: tuple[type[Exception], ...] = EXPECTED) -> Iterator[None]:
    """Ends the process with `error: ...` on stderr and exit code 1, without a traceback; stopped, with one line, too.

    It stands around what can fail because of what was passed, as a `with` block or as a decorator. With
    `PMGAFT_TRACEBACK=1` the traceback is shown.
    """
    try:
        with one_line_stops():
            yield
    except Exception as error:
        is_expected = isinstance(error, expected) and not isinstance(error, BUGS)
        of_data = type(error).__module__.partition(".")[0] == "datasets"
        _tell_launcher(error)
        if not (is_expected or of_data) or os.environ.get(TRACEBACK, "0") not in ("", "0"):
            raise
        sys.exit(f"error: {_message(error)}")


@contextlib.contextmanager
def one_line_stops(how_to_go_on: Callable[[], str] = str) -> Iterator[None]:
    """Ends the process at Ctrl-C or SIGTERM with one line on stderr, without a traceback, and exit code 130 or 143.

    Args:
        how_to_go_on (`Callable`): Says what goes on with what was done so far; nothing, if it is not given.
    """
    try:
        with catching_signals(raise_stop):
            yield
    except KeyboardInterrupt as stop:
        is_terminated = isinstance(stop, Terminated)
        if os.environ.get("RANK", "0") == "0":
            name = "SIGTERM" if is_terminated else "Ctrl-C"
            print(f"Stopped by {name}. {how_to_go_on()}".rstrip(), file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if is_terminated else signal.SIGINT))


def going_on_from(verdict_file: str | None) -> str:
    """What goes on with an evaluation that is stopped, in one sentence.

    Example:
        >>> going_on_from("verdicts.jsonl")
        'What was judged is in verdicts.jsonl: the same command goes on from there.'
    """
    if verdict_file is None:
        return "What was judged is lost: with --verdict_file FILE, the same command goes on where it was stopped."
    return f"What was judged is in {verdict_file}: the same command goes on from there."


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
