"""What an attack's options are: their names, defaults and checks, read from its signature, and from a text."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
import yaml

from ..registry import check_choice, check_count, check_kind, read_choice
from . import ATTACKS, DENSE_ATTACKS, TRAINING_ATTACKS
from .ball import parse_radius
from .early_stopped import early_stopped_pgd
from .pgd import check_reach, default_step_size, pgd
from .universal import completed

AUTOATTACK = ("apgd", "apgd_t", "fab", "fab_t", "square")  # reports name pyautoattack's version
NORMS = {
    "cw": ("l2", "linf"),
    "fgsm": ("l2", "linf"),
    "pgd": ("l2", "linf"),
    "sea": ("linf",),
    "universal": ("linf",),
    **dict.fromkeys((*AUTOATTACK, "autoattack"), ("l1", "l2", "linf")),
}
# What an attacker of a defended classifier knows. `unaware`: the bare classifier is attacked, and the defence judges.
# `through`: gradients go through the whole defence. `straight_through`: the defence is in the forward pass, and
# something simpler in the backward pass (BPDA, Athalye et al., ICML 2018, arXiv 1802.00420).
ATTACKERS = ("unaware", "through", "straight_through")
# Options of whoever attacks a defence, which no attack function takes. A description has them only where they are
# given: `attacker`, and over how many fresh draws of a random defence each step is averaged (`eot`).
OF_DEFENCES = ("attacker", "eot")
# The option of whoever makes images on another model than the one that is judged by them: the name of that model.
OF_TRANSFER = ("source",)
OF_ATTACKERS = (*OF_DEFENCES, *OF_TRANSFER)

_COUNTS = ("num_steps", "num_targets", "num_queries", "restarts", "search_steps", "places", "size", "words")
# What an attack is given by its caller, and is no option of a description.
_NO_OPTIONS = {
    *("class_names", "classifier", "images", "labels", "loss_fn", "masks", "options"),
    *("seeds", "segmenter", "start_std", "targeted"),
}


def parse_options(text: str) -> dict[str, Any]:
    """The dict of a text such as `"pgd,num_steps=100,loss=ce"`, neither checked nor completed.

    Example:
        >>> parse_options("pgd,num_steps=100,loss=ce")
        {'attack': 'pgd', 'num_steps': 100, 'loss': 'ce'}
    """
    return read_choice("attack", text, example="pgd,num_steps=100")


def write_options(choice: Mapping[str, Any]) -> str:
    """The text that [`parse_options`] reads as this dict. Options at their defaults are left out.

    Raises:
        ValueError: for a value with a comma, which such a text cannot hold.

    Example:
        >>> write_options({"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 100, "loss": "margin"})
        'pgd,eps=4/255,num_steps=100,loss=margin'
    """
    defaults = defaults_of(choice["attack"])
    parts = [choice["attack"]]
    for key, value in choice.items():
        if key == "attack" or (key in defaults and defaults[key] == value):
            continue
        written = yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
        if "," in written:
            raise ValueError(
                f"The attack {choice['attack']!r} has {key}={value!r}, whose comma ends it. Pass another."
            )
        parts.append(f"{key}={written}")
    return ",".join(parts)


def training_attack(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., torch.Tensor], dict[str, Any]]:
    """The attack of `TRAINING_ATTACKS` that a name and its options stand for, and the options to call it with.

    One with a state of its own is made anew. PGD with `tau` is the one that stops early.
    """
    attack = TRAINING_ATTACKS[name]
    if isinstance(attack, type):
        return attack(), dict(options)
    return resolve(attack, options)


def training_options(name: str) -> set[str]:
    """Names of the options that a training attack takes."""
    attack = TRAINING_ATTACKS[name]
    parameters = inspect.signature(attack() if isinstance(attack, type) else attack).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD}
    if len(names) < len(parameters):  # `**options` are handed on to PGD
        names |= set(inspect.signature(pgd).parameters)
    if "momentum" in names:
        names.add("tau")
    return names - (_NO_OPTIONS - {"start_std"})


def try_attack(title: str, attack: Callable[..., torch.Tensor], options: Mapping[str, Any], size: int = 16) -> None:
    """Runs an attack on one small image, so that a wrong option shows before anything is spent.

    Raises:
        ValueError: if it cannot run; `title` is what the message calls it.
    """
    image = torch.full((1, 3, size, size), 0.5)

    def classifier(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :4] * torch.tensor([1.0, 0.9, 0.8, 0.7])

    try:
        attack(classifier, image, torch.tensor([0]), **options)
    except TypeError as error:
        raise ValueError(f"{title} cannot run ({error}). Correct its options.") from error


def complete(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an attack, checked."""
    defaults = defaults_of(name)
    spec = {"attack": name, **given}
    of_attackers = {key: given[key] for key in OF_ATTACKERS if key in given and takes_attacker(name)}
    unknown = sorted(set(given) - set(defaults) - set(of_attackers))
    if unknown:
        raise ValueError(f"The attack {name!r} takes no {', '.join(unknown)}. It takes: {sorted(defaults)}.")

    full = {key: given.get(key, value) for key, value in defaults.items()}
    missing = sorted(key for key, value in full.items() if value is inspect.Parameter.empty)
    if missing == ["eps"]:
        raise ValueError(f"The attack {spec} has no radius. Add eps, such as '4/255'.")
    if missing:
        raise ValueError(f"The attack {spec} has no {' and no '.join(missing)}. Add it.")

    if name == "universal":
        full = completed(full)
    for key, value in full.items():
        full[key] = _like_default(f"The attack {name!r}", key, value, defaults[key])
    try:
        for key in _COUNTS:
            if key in full:
                full[key] = check_count(key, full[key])
        if "norm" in full:
            _check_ball(name, full)
        _check_of_defences(of_attackers)
        _check_source(of_attackers)
    except ValueError as error:
        raise ValueError(f"The attack {name!r}: {error}") from error
    return {**full, **of_attackers}


def takes_attacker(name: str) -> bool:
    """Whether an attack looks at the classifier that it attacks, so that it matters which one that is.

    Example:
        >>> takes_attacker("pgd"), takes_attacker("corruption")
        (True, False)
    """
    return name not in ("corruption", "universal") and name not in DENSE_ATTACKS


def _check_of_defences(given: Mapping[str, Any]) -> None:
    if "attacker" in given:
        check_choice("attacker", given["attacker"], ATTACKERS)
    if "eot" in given:
        check_count("eot", given["eot"])
        if given.get("attacker") == "unaware":
            raise ValueError(
                "You passed eot with attacker='unaware', which attacks the bare classifier, where nothing is drawn. "
                "Leave one of them out."
            )


def _check_source(given: dict[str, Any]) -> None:
    """Checks the name of a source, and makes a text of a path."""
    if "source" not in given:
        return
    source = given["source"]
    if isinstance(source, os.PathLike):
        source = given["source"] = os.fspath(source)
    if not isinstance(source, str) or not source.strip():
        raise ValueError(
            f"You passed source={source!r}, which is no name of a model. Pass a Hub id such as "
            "openai/clip-vit-base-patch32, or a folder; one called by a number is ./7."
        )
    others = [f"{key}={given[key]!r}" for key in OF_DEFENCES if key in given]
    if others:
        raise ValueError(
            f"You passed source={source!r} with {', '.join(others)}. Images of a source are made without the model "
            "under test, so that nothing is known of its defence. Leave one of them out."
        )


def _like_default(title: str, key: str, value: Any, default: Any) -> Any:
    """An option's value, which must be of the kind of a default that is a truth value or a share."""
    if not isinstance(default, (bool, float)):
        return value
    checked = check_kind(title, type(default), key, value)
    if isinstance(default, float) and not 0 <= checked < float("inf"):
        raise ValueError(f"{title} cannot take {key}={value!r}. Pass a number of 0 or more.")
    return value if checked == value else checked


def _check_ball(name: str, full: dict[str, Any]) -> None:
    """Checks the ball and the walk in it, whose length of a step is filled in."""
    check_choice("norm", full["norm"], NORMS[name])
    radius = parse_radius(full["eps"], full["norm"])
    if "step_size" not in full:
        return
    if full["step_size"] is None:
        full["step_size"] = default_step_size(radius, full["num_steps"])
    check_reach(full["eps"], full["norm"], full["num_steps"], full["step_size"])


def defaults_of(name: str) -> dict[str, Any]:
    """All options of an attack with their defaults."""
    if name == "autoattack":
        return {"eps": inspect.Parameter.empty, "norm": "linf", "version": "standard"}
    parameters = dict(inspect.signature({**ATTACKS, **DENSE_ATTACKS}[name]).parameters)
    if name == "fgsm":  # whose further options are those of PGD
        own = set(parameters) | {"num_steps", "step_size"}
        parameters |= {key: value for key, value in inspect.signature(pgd).parameters.items() if key not in own}
    if name in ("fgsm", "pgd"):
        parameters["tau"] = inspect.Parameter("tau", inspect.Parameter.KEYWORD_ONLY, default=None)
    return {key: value.default for key, value in parameters.items() if key not in _NO_OPTIONS}


def resolve(
    attack: Callable[..., torch.Tensor], options: Mapping[str, Any]
) -> tuple[Callable[..., torch.Tensor], dict[str, Any]]:
    """The attack function that options ask for: with `tau` it is the one that stops early."""
    options = dict(options)
    if options.get("tau") is None:
        options.pop("tau", None)
        return attack, options

    if attack is ATTACKS["fgsm"]:
        options = {"random_start": False, **options, "num_steps": 1, "step_size": None}
    if options.pop("restarts", 1) > 1:
        raise ValueError(
            "You passed tau with restarts, but the early stop is that of one run away from the label. Leave one of "
            "the two out."
        )
    return early_stopped_pgd, options
