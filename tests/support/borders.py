"""Borders: what comes in from outside, in a table of inputs and their outcomes.

Each file of `tests/borders` holds the table of one border, at least ten inputs by what is special about them:

    CASES = {
        "a byte order mark": ("\ufeffcat\ndog", ["cat", "dog"]),
        "nothing but blank lines": ("\n\n", Refused("no class names")),
    }

    @outcomes(CASES)
    def test_files_of_class_names(given, outcome, tmp_path):
        check(lambda: read_names(written(tmp_path, given)), outcome)

An outcome is the right value or [`Refused`]. Whatever else is raised is a bug, and fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

MIN_CASES = 10
LONGEST_MESSAGE = 700


@dataclass(frozen=True)
class Refused:
    """An input that is refused, by these words of the message."""

    words: str
    error: type[Exception] = ValueError


def outcomes(cases: dict[str, tuple[Any, Any]]):
    """Runs a test with `given` and `outcome` of each case, under its name."""
    assert len(cases) >= MIN_CASES, f"A border is tried with at least {MIN_CASES} inputs, not {len(cases)}."
    return pytest.mark.parametrize(("given", "outcome"), list(cases.values()), ids=list(cases))


def check(compute: Callable[[], Any], outcome: Any) -> None:
    """Asserts that the computation gives the right value, or is refused in one clear message."""
    if not isinstance(outcome, Refused):
        value = compute()
        if isinstance(outcome, torch.Tensor):
            torch.testing.assert_close(value, outcome)
        else:
            assert value == outcome
        return

    with pytest.raises(outcome.error, match=re.escape(outcome.words)) as caught:
        compute()
    message = str(caught.value)
    assert len(message) < LONGEST_MESSAGE and "\n" not in message.strip(), f"No one clear line: {message}"
