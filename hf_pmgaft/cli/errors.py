"""How a command ends when what it was passed cannot work."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the process with `error: ...` on stderr and exit code 1, without a traceback.

    It stands around what can fail because of what was passed, as a `with` block or as a decorator.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, ImportError) as error:
        sys.exit(f"error: {without_traceback(error)}")


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
