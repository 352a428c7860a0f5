"""Progress bars that are drawn over themselves in a terminal or notebook, and say little in a log file."""

from __future__ import annotations

import sys

from tqdm.auto import notebook_tqdm, std_tqdm, tqdm

LOG_INTERVAL = 30.0  # seconds between two lines of a bar in a log file


def progress_bar(
    title: str, total: int | None = None, done: int = 0, unit: str = "img", shown: bool = True, delay: float = 0.0
) -> tqdm:
    """A bar of so many things to do, of which some are done. A log file gets a line every 30 seconds.

    Work that is done within `delay` seconds has no bar.

    Example:
        >>> with progress_bar("food: clean", total=2, shown=False) as bar:
        ...     for _ in range(2):
        ...         done = bar.update()
    """
    interval = {} if is_drawn_over() else {"mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL}
    return tqdm(desc=title, total=total, initial=done, unit=unit, disable=not shown, delay=delay, **interval)


def announce(text: str) -> None:
    """Says something beside the bars, where they are drawn.

    Example:
        >>> announce("16,000 images in 16 sets")
    """
    tqdm.write(text, file=sys.stderr)


def is_drawn_over() -> bool:
    """Whether a bar is drawn over itself where it is shown: in a terminal or a notebook, and not in a log file."""
    return is_terminal() or notebook_tqdm is not std_tqdm


def is_terminal() -> bool:
    """Whether bars are shown in a terminal, where one stays below the other."""
    return sys.stderr.isatty()
