"""Figures of a report that was read: shares of images, and those of the verdicts beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .figure import Figure
from .outcomes import summed

ROUND_OFF = 1e-6


class Figures(Protocol):
    """What [`check_figures`] reads of a row of a report."""

    name: str
    num_samples: int
    clean_accuracy: float
    robust_accuracy: float
    robust_8bit_accuracy: float | None
    attacks: Mapping[str, float]
    threats: Mapping[str, float]
    draws: Mapping[str, Mapping[str, float]] | None
    verdicts: Mapping[str, Sequence[Any]]
    figure: Figure


def check_figures(result: Figures) -> None:
    """Raises `ValueError` for a row whose figures nobody can have measured.

    Example:
        >>> from hf_pmgaft.evaluation.report import SetResult
        >>> check_figures(SetResult("food", 10, 150, clean_accuracy=0.74, robust_accuracy=0.43, attacks={}))
        >>> check_figures(SetResult("food", 10, 150, clean_accuracy=74, robust_accuracy=43, attacks={}))
        Traceback (most recent call last):
        ValueError: the clean figure of 'food' is 74, which is no share from 0 to 1
    """
    figures = {"clean": result.clean_accuracy, "robust": result.robust_accuracy, **result.attacks, **result.threats}
    if result.robust_8bit_accuracy is not None:
        figures["8 bit"] = result.robust_8bit_accuracy
    of_draws = {f"{key} {name}": value for key, row in (result.draws or {}).items() for name, value in row.items()}
    for key, value in {**figures, **of_draws}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"the {key} figure of {result.name!r} is {value!r}, which is no share from 0 to 1")
    count = result.num_samples
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{result.name!r} has {count!r} samples")

    for key, verdicts in result.verdicts.items():
        if len(verdicts) != count:
            raise ValueError(f"{result.name!r} has {len(verdicts)} entries of {key} for {count} samples")
        if key in figures and abs(summed(result.figure, verdicts) - figures[key]) > ROUND_OFF:
            raise ValueError(
                f"the {key} figure of {result.name!r} is {figures[key]}, but its verdicts give "
                f"{summed(result.figure, verdicts)}"
            )
