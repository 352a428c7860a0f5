"""SIGTERM and Ctrl-C (SIGINT): the first one stops what runs in good order, a second one at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

# Launchers pass on a signal that the terminal has sent to all processes; within so many seconds it is the same one.
PASSED_ON_WITHIN = 1.0


class Terminated(KeyboardInterrupt):
    """SIGTERM, for code that cleans up after Ctrl-C."""


@contextlib.contextmanager
def catching_signals(first: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Calls a function at the first SIGTERM or Ctrl-C, in place of what they do; a second one does that at once.

    Only the main thread can catch signals; in another one nothing changes.

    Args:
        first (`Callable`): Gets the signal. It may raise.

    Example:
        >>> received = []
        >>> with catching_signals(received.append):
        ...     signal.raise_signal(signal.SIGTERM)
        >>> received[0].name
        'SIGTERM'
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()
    since: list[float] = []  # when the first one came

    def receive(number: int, _) -> None:
        if os.getpid() != process:
            # A worker that loads data, which its process needs until it ends by itself.
            if number == signal.SIGTERM:
                end_by(number)
        elif not since:
            since.append(time.monotonic())
            first(signal.Signals(number))
        elif time.monotonic() - since[0] > PASSED_ON_WITHIN:
            if number == signal.SIGINT:
                raise KeyboardInterrupt  # which ends a cell of a notebook, and not its process
            end_by(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_stop(number: signal.Signals) -> None:
    """Raises `KeyboardInterrupt` for Ctrl-C, and [`Terminated`], which is one too, for SIGTERM.

    Example:
        >>> try:
        ...     raise_stop(signal.SIGTERM)
        ... except KeyboardInterrupt as stop:
        ...     print(type(stop).__name__)
        Terminated
    """
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def end_by(number: int) -> None:
    """Lets a signal do to this process what it does to one that does not listen."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
