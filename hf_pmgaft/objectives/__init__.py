"""Published objectives, by name. A new one is one file and one row here."""

from __future__ import annotations

from ..registry import make
from .advflyp import AdvFLYP
from .agft import AGFT
from .apt import APT
from .base import Objective
from .capt import CAPT
from .caw import CAW
from .clean import Clean
from .comp_tga import CompTGA
from .fap import FAP
from .fare import FARE
from .mpm_nce import MPMNCE
from .pmg_aft import PMGAFT
from .qt_aft import QTAFT
from .sim_clip import SimCLIP
from .tecoa import TeCoA
from .tga_zsr import TGAZSR
from .trades import TRADES
from .ucat import UCAT

OBJECTIVES: dict[str, type[Objective]] = {
    "advflyp": AdvFLYP,
    "agft": AGFT,
    "apt": APT,
    "capt": CAPT,
    "caw": CAW,
    "clean": Clean,
    "comp_tga": CompTGA,
    "fap": FAP,
    "fare": FARE,
    "mpm_nce": MPMNCE,
    "pmg_aft": PMGAFT,
    "qt_aft": QTAFT,
    "sim_clip": SimCLIP,
    "tecoa": TeCoA,
    "tga_zsr": TGAZSR,
    "trades": TRADES,
    "ucat": UCAT,
}


def make_objective(objective: str | Objective, options: dict | None = None) -> Objective:
    """Makes an objective by its name and options, or returns the given instance.

    Raises:
        ValueError: for an unknown name or option, or an option's value of the wrong kind.

    Example:
        >>> make_objective("trades", {"lam": 1.0})
        TRADES(lam=1.0)
    """
    if isinstance(objective, Objective):
        if options:
            raise ValueError(
                f"You passed a {type(objective).__name__} together with objective_kwargs={options}, which would be "
                "ignored. Set them on the instance."
            )
        return objective
    return make("objective", OBJECTIVES, objective, options)


__all__ = [
    "AGFT",
    "APT",
    "AdvFLYP",
    "CAPT",
    "CAW",
    "Clean",
    "CompTGA",
    "FAP",
    "FARE",
    "MPMNCE",
    "OBJECTIVES",
    "Objective",
    "PMGAFT",
    "QTAFT",
    "SimCLIP",
    "TGAZSR",
    "TRADES",
    "TeCoA",
    "UCAT",
    "make_objective",
]
