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
        sys.exit(f"error: {error}")
