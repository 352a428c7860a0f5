"""What an evaluation is asked for: attacks as dicts, checked, completed, named and run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from .attacks import ATTACKS, components, inside, known, parse_radius, pgd
from .attacks.autoattack import VERSIONS

Spec = dict[str, Any]
AUTOATTACK = ("apgd", "apgd_t", "fab", "fab_t", "square")  # run by pyautoattack
_NORMS = {
    "cw": ("l2", "linf"),
    "fgsm": ("l2", "linf"),
    "pgd": ("l2", "linf"),
    **dict.fromkeys((*AUTOATTACK, "autoattack"), ("l1", "l2", "linf")),
}
_NAMES = {"apgd_t": "APGD-T", "fab_t": "FAB-T", "square": "Square"}
# Options that stand in an attack's name anyway.
_NAMED = {"pgd": {"num_steps", "loss", "restarts"}, "fgsm": {"loss"}, "apgd": {"loss", "restarts"}}
_CLASSES = {"apgd_t": 4, "dlr": 3}
_NO_OPTIONS = {"classifier", "images", "labels", "loss_fn", "seeds", "targeted", "any_iterate", "options", "start_std"}


def check_attack(spec: Mapping[str, Any]) -> Spec:
    """An attack's description with all of its options, or a `ValueError` that says what is wrong with it.

    `{"attack": "pgd", "eps": "4/255", "num_steps": 50}`: the name of one of `ATTACKS`, or `"autoattack"` with a
    `version` (`"standard"`, `"fast"` or `"plus"`), and the attack's own options.
    """
    name = spec.get("attack")
    if name not in ATTACKS and name != "autoattack":
        raise ValueError(f"There is no attack {name!r}. Choose one of {sorted([*ATTACKS, 'autoattack'])}.")
    defaults = _options(name)
    unknown = sorted(set(spec) - set(defaults) - {"attack"})
    if unknown:
        raise ValueError(f"The attack {name!r} takes no {', '.join(unknown)}. It takes: {sorted(defaults)}.")
    full = {"attack": name, **{key: spec.get(key, value) for key, value in defaults.items()}}
    missing = sorted(key for key, value in full.items() if value is inspect.Parameter.empty)
    if missing == ["eps"]:
        raise ValueError(f"The attack {dict(spec)} has no radius. Add eps, such as '4/255'.")
    if missing:
        raise ValueError(f"The attack {dict(spec)} has no {' and no '.join(missing)}. Add it.")
    if "norm" in full:
        known("norm", full["norm"], _NORMS[name])
        radius = parse_radius(full["eps"], full["norm"])
        if full.get("step_size", radius) is None:
            full["step_size"] = radius if full.get("num_steps") == 1 else 2.5 * radius / full["num_steps"]
    for key in ("num_steps", "num_targets", "num_queries", "restarts", "search_steps", "places", "size"):
        if key in full and not (isinstance(full[key], int) and full[key] >= 1):
            raise ValueError(
                f"The attack {name!r} has {key}={full[key]!r}, which leaves nothing to do. Pass 1 or more."
            )
    _try(full)
    return full


def expand(spec: Spec, num_classes: int) -> list[Spec]:
    """The attacks that a description stands for on a set of so many classes.

    Raises:
        ValueError: if the attack cannot handle so few classes.
    """
    if spec["attack"] == "autoattack":
        parts = components(spec["version"], num_classes, eps=spec["eps"], norm=spec["norm"])
        return [check_attack(part) for part in parts]
    needed = max(_CLASSES.get(spec["attack"], 2), _CLASSES.get(spec.get("loss"), 2))
    if num_classes < needed:
        raise ValueError(
            f"{attack_name(spec)} needs at least {needed} classes for its loss, but the set has {num_classes}. Use "
            'the margin loss, or "autoattack", which chooses by itself.'
        )
    return [spec]


def norm_of(spec: Mapping[str, Any]) -> str | None:
    """The norm of the ball, if the threat is one."""
    return spec.get("norm", "linf") if "eps" in spec else None


def threat_name(spec: Mapping[str, Any]) -> str:
    """What the attacker may do, such as `linf 4/255`; attacks of one threat make one worst case."""
    if spec["attack"] == "patch":
        return f"patch {spec['size']}x{spec['size']}"
    if spec["attack"] == "corruption":
        return f"{spec['kind']} {spec['severity']}"
    return f"{norm_of(spec)} {spec['eps']}"


def attack_name(spec: Mapping[str, Any]) -> str:
    """An attack as tables name it, such as `PGD-20 margin linf 4/255`; options off their defaults follow."""
    name, threat = spec["attack"], threat_name(spec)
    if name == "corruption":
        return threat
    if name == "autoattack":
        return f"AutoAttack {spec['version']} {threat}"
    title = _NAMES.get(name, name.upper())
    if name in ("pgd", "fgsm"):
        title += f"-{spec['num_steps']}" if "num_steps" in spec else ""
    if name == "apgd":
        title += f"-{spec.get('loss', 'ce').upper()}"
    if name in _NAMED:
        title += f" x{spec['restarts']}" if spec.get("restarts", 1) > 1 else ""
    if name in ("pgd", "fgsm"):
        title += f" {spec.get('loss', 'ce')}"
    shown = {"attack", "eps", "norm", "size", "step_size"} | _NAMED.get(name, set())
    defaults = _options(name)
    other = {key: value for key, value in spec.items() if key not in shown and value != defaults.get(key)}
    if _other_step(spec):
        other["step_size"] = spec["step_size"]
    listed = ", ".join(f"{key}={value}" for key, value in other.items())
    return f"{title} {threat.removeprefix('patch ')}" + (f" ({listed})" if listed else "")


def run_attack(
    spec: Mapping[str, Any],
    classifier: Any,
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: torch.Tensor,
    any_iterate: bool = False,
) -> torch.Tensor:
    """Adversarial images of one batch by an attack's description.

    Args:
        any_iterate (`bool`): Whether walks end at the first misclassified point, for attacks that leave the choice.
    """
    options = {name: value for name, value in spec.items() if name != "attack"}
    if spec["attack"] in ("pgd", "fgsm", "cw"):
        options["any_iterate"] = any_iterate
    return ATTACKS[spec["attack"]](classifier, images, labels, seeds=seeds, **options)


def within_threat(spec: Mapping[str, Any], images: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
    """Which adversarial images are what the threat allows: finite, in [0,1], inside the ball or under one square."""
    flat = adversarial.flatten(1)
    valid = torch.isfinite(flat).all(1) & (flat.amin(1) >= 0) & (flat.amax(1) <= 1)
    if norm := norm_of(spec):
        return valid & inside(images, adversarial, parse_radius(spec["eps"], norm), norm)
    if spec["attack"] == "patch":
        changed = (adversarial != images).any(1)
        for side in (changed.any(1), changed.any(2)):
            place = torch.arange(side.shape[1], device=side.device)
            first, last = place.where(side, len(place)).amin(1), place.where(side, -1).amax(1)
            valid &= last - first < spec["size"]
    return valid


def round_to_8_bits(spec: Mapping[str, Any], images: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
    """Adversarial images as 8-bit files hold them; in L-inf by the grey levels inside the ball."""
    levels = (adversarial * 255).round()
    if norm_of(spec) == "linf":
        eps = parse_radius(spec["eps"]) * 255
        levels = levels.clamp((images * 255 - eps - 1e-3).ceil(), (images * 255 + eps + 1e-3).floor())
    return (levels / 255).clamp(0, 1)


def _options(name: str) -> Spec:
    """All options of an attack with their defaults."""
    if name == "autoattack":
        return {"eps": inspect.Parameter.empty, "norm": "linf", "version": "standard"}
    parameters = dict(inspect.signature(ATTACKS[name]).parameters)
    if name == "fgsm":  # whose further options are those of PGD
        own = set(parameters) | {"num_steps", "step_size"}
        parameters |= {key: value for key, value in inspect.signature(pgd).parameters.items() if key not in own}
    return {key: value.default for key, value in parameters.items() if key not in _NO_OPTIONS}


def _other_step(spec: Mapping[str, Any]) -> bool:
    """Whether PGD's step is another than its default for the radius and the number of steps."""
    if spec["attack"] != "pgd" or spec.get("step_size") is None or "num_steps" not in spec:
        return False
    radius = parse_radius(spec["eps"], norm_of(spec))
    default = radius if spec["num_steps"] == 1 else 2.5 * radius / spec["num_steps"]
    return abs(parse_radius(spec["step_size"], norm_of(spec)) - default) > 1e-6 * default


def _try(spec: Spec) -> None:
    """Runs an attack on one small image, so that a wrong option shows before anything is spent."""
    if spec["attack"] == "autoattack":
        known("version", spec["version"], VERSIONS)
        for part in components(spec["version"], 4, eps=spec["eps"], norm=spec["norm"]):
            _try(part)
        return
    image = torch.full((1, 3, 16, 16), 0.5)
    cheap = {"num_steps": 3, "num_queries": 1, "restarts": 1, "search_steps": 1, "num_targets": 1, "places": 1}
    cheap = {**spec, **{key: value for key, value in cheap.items() if key in spec}}
    if "size" in spec:
        cheap["size"] = 1

    def classifier(x):
        return x.flatten(1)[:, :4] * torch.tensor([1.0, 0.9, 0.8, 0.7])

    try:
        run_attack(cheap, classifier, image, torch.tensor([0]), torch.tensor([0]))
    except TypeError as error:
        raise ValueError(f"The attack {spec} cannot run ({error}). Correct its options.") from error
