"""A clock that the tests of progress bars move."""

import re

import pytest


class Clock:
    """The seconds that have passed for progress bars.

    Args:
        monkeypatch (`pytest.MonkeyPatch`): Puts it in the place of the bars' own clock.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr("tqdm.std.time", lambda: self.now)


def lines_of(text: str) -> list[str]:
    """What was drawn, one after the other."""
    return [line for line in re.split("[\r\n]", text) if line.strip()]
