"""Signals in the middle of something."""

import signal
from collections.abc import Callable
from typing import Any


def at_call(count: int, function: Callable, number: int) -> Callable:
    """A function that at its so manieth call sends this process a signal before it does what it does."""
    return before_call(count, function, lambda: signal.raise_signal(number))


def before_call(count: int, function: Callable, act: Callable[[], Any]) -> Callable:
    """A function before whose so manieth call something else is done."""
    calls = 0

    def acting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            act()
        return function(*args, **kwargs)

    return acting
