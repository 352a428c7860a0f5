"""Published objectives, by name. A new one is one file and one row here."""

from __future__ import annotations

from ..options import make
from .base import Objective
from .clean import Clean
from .fare import FARE
from .pmg_aft import PMGAFT
from .tecoa import TeCoA

OBJECTIVES: dict[str, type[Objective]] = {"clean": Clean, "fare": FARE, "pmg_aft": PMGAFT, "tecoa": TeCoA}


def make_objective(objective: str | Objective, options: dict | None = None) -> Objective:
    """An objective by its name and options, or the given instance.

    Raises:
        ValueError: for an unknown name or option, or an option's value of the wrong kind.
    """
    if isinstance(objective, Objective):
        if options:
            raise ValueError(
                f"You passed a {type(objective).__name__} together with objective_kwargs={options}, which would be "
                "ignored. Set them on the instance."
            )
        return objective
    return make("objective", OBJECTIVES, objective, options)


__all__ = ["Clean", "FARE", "OBJECTIVES", "Objective", "PMGAFT", "TeCoA", "make_objective"]
