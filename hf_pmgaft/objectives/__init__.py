"""Published objectives, by name. A new one is one file and one row here."""

from __future__ import annotations

import dataclasses
import typing

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
    if objective not in OBJECTIVES:
        raise ValueError(f"There is no objective {objective!r}. Choose one of {sorted(OBJECTIVES)}.")
    options = dict(options or {})
    cls = OBJECTIVES[objective]
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"Objective {objective!r} has no option {', '.join(unknown)}. It has: {sorted(known)}.")
    return cls(**{name: _check_option(objective, cls, name, value) for name, value in options.items()})


def _check_option(objective: str, cls: type[Objective], name: str, value):
    """The option's value as its annotated type; numbers may come as text, as YAML 1.1 leaves `1e-3`."""
    annotation = typing.get_type_hints(cls)[name]
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else None
    if choices is not None:
        valid = value in choices
    elif annotation is bool:
        valid, choices = isinstance(value, bool), "true or false"
    elif annotation is str:
        valid, choices = isinstance(value, str), "a text"
    else:
        choices = "a number"
        optional = type(None) in typing.get_args(annotation)
        try:
            valid = not isinstance(value, bool)
            value = None if value is None and optional else float(value)
        except (TypeError, ValueError):
            valid = False
    if not valid:
        raise ValueError(f"Objective {objective!r} cannot take {name}={value!r}. Pass {choices}.")
    return value


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
