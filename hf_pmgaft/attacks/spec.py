"""`AttackSpec`: an attack with all of its options, as an evaluation is asked for it, runs it and reports it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import yaml

from ..registry import check_choice, check_count, check_kind
from . import ATTACKS, SERVED_BY_FIRST_FOOLED, TRAINING_ATTACKS, WALKS
from .any_iterate import first_fooled
from .autoattack import VERSIONS, components
from .ball import inside, parse_radius, parse_step_size
from .early_stopped import early_stopped_pgd
from .pgd import check_reach, default_step_size, pgd
from .walk import Walk

AUTOATTACK = ("apgd", "apgd_t", "fab", "fab_t", "square")  # reports name pyautoattack's version
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
_COUNTS = ("num_steps", "num_targets", "num_queries", "restarts", "search_steps", "places", "size")
# What an attack is given by its caller, and is no option of a description.
_NO_OPTIONS = {"classifier", "images", "labels", "loss_fn", "seeds", "targeted", "options", "start_std"}
# What an option becomes in the trial on a small image.
_CHEAP = {"num_steps": 3, "num_queries": 1, "restarts": 1, "search_steps": 1, "num_targets": 1, "places": 1, "size": 1}


@dataclass(frozen=True)
class AttackSpec:
    """An attack with its options: what is run, what it may do, and how tables call it.

    Make one by [`AttackSpec.of`], which checks and completes it, or [`AttackSpec.parse`]. The constructor takes what a
    report has stored, as it is.

    Args:
        attack (`str`): One of `hf_pmgaft.attacks.ATTACKS`, or `"autoattack"`.
        options (`dict`): The attack's own options by name, such as `eps` and `num_steps`.

    Example:
        >>> spec = AttackSpec.parse("pgd,eps=4/255,num_steps=50")
        >>> spec.name, spec.threat, spec.norm
        ('PGD-50 ce linf 4/255', 'linf 4/255', 'linf')
    """

    attack: str
    options: Mapping[str, Any]

    # ---- Made from what a user passes, and turned back into it ----

    @classmethod
    def of(cls, value: AttackSpec | Mapping[str, Any] | str) -> AttackSpec:
        """A checked attack with all of its options, from a dict, a text or another one.

        A dict is such as `{"attack": "pgd", "eps": "4/255", "num_steps": 50}`: the name of one of `ATTACKS`, or
        `"autoattack"` with a `version` (`"standard"`, `"fast"` or `"plus"`), and the attack's own options.

        Raises:
            ValueError: says what is wrong with it.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, (AttackSpec, Mapping)):
            raise ValueError(
                f"You passed the attack {value!r}, which is no description of one. Pass such as "
                "'pgd,eps=4/255,num_steps=50' or {'attack': 'pgd', 'eps': '4/255', 'num_steps': 50}."
            )
        given = value.to_dict() if isinstance(value, AttackSpec) else dict(value)
        name = given.pop("attack", None)
        if not isinstance(name, str) or (name not in ATTACKS and name != "autoattack"):
            raise ValueError(f"There is no attack {name!r}. Choose one of {sorted([*ATTACKS, 'autoattack'])}.")

        spec = cls(name, _complete(name, given))
        spec._try_on_a_small_image()
        return spec

    @classmethod
    def parse(cls, text: str) -> AttackSpec:
        """A checked attack from a text such as `"pgd,eps=4/255,num_steps=50"`.

        Raises:
            ValueError: says what is wrong with it.
        """
        return cls.of(parse_options(text))

    @classmethod
    def stored(cls, entry: Mapping[str, Any]) -> AttackSpec:
        """The attack of an entry that [`AttackSpec.to_dict`] made, of whatever version, as it stands there."""
        options = dict(entry)
        return cls(options.pop("attack"), options)

    def to_dict(self) -> dict[str, Any]:
        """The attack as reports store it: its name under `"attack"`, and its options."""
        return {"attack": self.attack, **self.options}

    # ---- What it is ----

    @property
    def norm(self) -> str | None:
        """The norm of the ball, if the threat is one."""
        return self.options.get("norm", "linf") if "eps" in self.options else None

    @property
    def radius(self) -> float:
        """The radius of the ball, in the scale of images in [0,1]."""
        return parse_radius(self.options["eps"], self.norm)

    @property
    def threat(self) -> str:
        """What the attacker may do, such as `linf 4/255`; attacks of one threat make one worst case."""
        if self.attack == "patch":
            return f"patch {self.options['size']}x{self.options['size']}"
        if self.attack == "corruption":
            return f"{self.options['kind']} {self.options['severity']}"
        return f"{self.norm} {self.options['eps']}"

    @property
    def name(self) -> str:
        """The attack as tables name it, such as `PGD-20 margin linf 4/255`; options off their defaults follow."""
        if self.attack == "corruption":
            return self.threat
        if self.attack == "autoattack":
            return f"AutoAttack {self.options['version']} {self.threat}"

        # What every table wants to know
        options, walks = self.options, self.attack in ("pgd", "fgsm")
        title = _NAMES.get(self.attack, self.attack.upper())
        if walks and "num_steps" in options:
            title += f"-{options['num_steps']}"
        if self.attack == "apgd":
            title += f"-{options.get('loss', 'ce').upper()}"
        if self.attack in _NAMED and options.get("restarts", 1) > 1:
            title += f" x{options['restarts']}"
        if walks:
            title += f" {options.get('loss', 'ce')}"

        # What is off its default
        shown = {"eps", "norm", "size", "step_size"} | _NAMED.get(self.attack, set())
        defaults = _defaults(self.attack)
        others = {key: value for key, value in options.items() if key not in shown and value != defaults.get(key)}
        if self._has_another_step():
            others["step_size"] = options["step_size"]
        listed = ", ".join(f"{key}={value}" for key, value in others.items())

        name = f"{title} {self.threat.removeprefix('patch ')}"
        return f"{name} ({listed})" if listed else name

    def expand(self, num_classes: int) -> list[AttackSpec]:
        """The attacks that this one stands for on a set of so many classes.

        Raises:
            ValueError: if the attack cannot handle so few classes.
        """
        if self.attack == "autoattack":
            parts = components(
                self.options["version"], num_classes, eps=self.options["eps"], norm=self.options["norm"]
            )
            return [AttackSpec.of(part) for part in parts]

        needed = max(_CLASSES.get(self.attack, 2), _CLASSES.get(self.options.get("loss"), 2))
        if num_classes < needed:
            raise ValueError(
                f"{self.name} needs at least {needed} classes for its loss, but the set has {num_classes}. Use "
                'the margin loss, or "autoattack", which chooses by itself.'
            )
        return [self]

    # ---- What it does ----

    def run(
        self,
        classifier: Callable[[torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        *,
        any_iterate: bool = False,
        targeted: bool = False,
    ) -> torch.Tensor:
        """Adversarial images of one batch, `[B,C,H,W]` in [0,1].

        Args:
            any_iterate (`bool`): Whether walks end at the first misclassified point, for attacks that leave the
                choice.
            targeted (`bool`): Whether `labels` are the classes to reach, for PGD and FGSM.
        """
        attack, options = _resolve(ATTACKS[self.attack], self.options)
        if targeted:
            options["targeted"] = True
        if any_iterate and self.norm in SERVED_BY_FIRST_FOOLED.get(self.attack, ()):
            if attack is early_stopped_pgd:
                raise ValueError(
                    "You passed tau with the verdict any_iterate, where a walk ends at the first wrong class. Leave "
                    "tau out, or pass verdict='last_iterate'."
                )
            attack = partial(first_fooled, attack)
        return attack(classifier, images, labels, seeds=seeds, **options)

    def walk(self, num_classes: int) -> Walk | None:
        """The attack as walks that run in any company, on so many classes; `None` if it runs batch by batch."""
        options = dict(self.options)
        if self.attack not in WALKS or options.pop("tau", None) is not None:
            return None
        if "num_targets" in options:
            options["num_classes"] = num_classes
        return WALKS[self.attack](**options)

    def allows(self, images: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
        """Which adversarial images are what the threat allows, `[B]`: finite, in [0,1], inside the ball or under one
        square."""
        flat = adversarial.flatten(1)
        valid = torch.isfinite(flat).all(1) & (flat.amin(1) >= 0) & (flat.amax(1) <= 1)
        if self.norm:
            return valid & inside(images, adversarial, self.radius, self.norm)
        if self.attack == "patch":
            changed = (adversarial != images).any(1)
            for side in (changed.any(1), changed.any(2)):
                place = torch.arange(side.shape[1], device=side.device)
                first = place.where(side, len(place)).amin(1)
                last = place.where(side, -1).amax(1)
                valid &= last - first < self.options["size"]
        return valid

    def round_to_8_bits(self, images: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
        """Adversarial images as 8-bit files hold them; in L-inf by the grey levels inside the ball."""
        levels = (adversarial * 255).round()
        if self.norm == "linf":
            eps = parse_radius(self.options["eps"]) * 255
            levels = levels.clamp((images * 255 - eps - 1e-3).ceil(), (images * 255 + eps + 1e-3).floor())
        return (levels / 255).clamp(0, 1)

    def _has_another_step(self) -> bool:
        """Whether PGD's step is another than its default for the radius and the number of steps."""
        options = self.options
        if self.attack != "pgd" or options.get("step_size") is None or "num_steps" not in options:
            return False
        default = default_step_size(self.radius, options["num_steps"])
        return abs(parse_step_size(options["step_size"], self.radius, self.norm) - default) > 1e-6 * default

    def _try_on_a_small_image(self) -> None:
        if self.attack == "autoattack":
            check_choice("version", self.options["version"], VERSIONS)
            self.expand(4)  # each part is tried as it is made
            return

        attack, options = _resolve(ATTACKS[self.attack], self.options)
        options.update({key: value for key, value in _CHEAP.items() if key in options})
        try_attack(f"The attack {self.to_dict()}", partial(attack, seeds=torch.tensor([0])), options)


def parse_options(text: str) -> dict[str, Any]:
    """The dict of a text such as `"pgd,num_steps=100,loss=ce"`, neither checked nor completed.

    Example:
        >>> parse_options("pgd,num_steps=100,loss=ce")
        {'attack': 'pgd', 'num_steps': 100, 'loss': 'ce'}
    """
    name, *options = text.split(",")
    wrong = [option for option in options if "=" not in option]
    if wrong:
        raise ValueError(f"The attack {text!r} has {wrong}, which is no option=value. Write as pgd,num_steps=100.")

    spec: dict[str, Any] = {"attack": name.strip()}
    for option in options:
        key, value = option.split("=", 1)
        key = key.strip()
        if key in spec:
            raise ValueError(f"The attack {text!r} has {key} twice. Leave one of them out.")
        try:
            spec[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"The attack {text!r} has {key}={value}, which cannot be read. Correct it.") from None
    return spec


def training_attack(name: str, options: Mapping[str, Any]) -> tuple[Callable[..., torch.Tensor], dict[str, Any]]:
    """The attack of `TRAINING_ATTACKS` that a name and its options stand for, and the options to call it with.

    One with a state of its own is made anew. PGD with `tau` is the one that stops early.
    """
    attack = TRAINING_ATTACKS[name]
    if isinstance(attack, type):
        return attack(), dict(options)
    return _resolve(attack, options)


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


def _complete(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an attack, checked."""
    defaults = _defaults(name)
    spec = {"attack": name, **given}
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(f"The attack {name!r} takes no {', '.join(unknown)}. It takes: {sorted(defaults)}.")

    full = {key: given.get(key, value) for key, value in defaults.items()}
    missing = sorted(key for key, value in full.items() if value is inspect.Parameter.empty)
    if missing == ["eps"]:
        raise ValueError(f"The attack {spec} has no radius. Add eps, such as '4/255'.")
    if missing:
        raise ValueError(f"The attack {spec} has no {' and no '.join(missing)}. Add it.")

    for key, value in full.items():
        full[key] = _like_default(f"The attack {name!r}", key, value, defaults[key])
    try:
        for key in _COUNTS:
            if key in full:
                full[key] = check_count(key, full[key])
        if "norm" in full:
            _check_ball(name, full)
    except ValueError as error:
        raise ValueError(f"The attack {name!r}: {error}") from error
    return full


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
    check_choice("norm", full["norm"], _NORMS[name])
    radius = parse_radius(full["eps"], full["norm"])
    if "step_size" not in full:
        return
    if full["step_size"] is None:
        full["step_size"] = default_step_size(radius, full["num_steps"])
    check_reach(full["eps"], full["norm"], full["num_steps"], full["step_size"])


def _defaults(name: str) -> dict[str, Any]:
    """All options of an attack with their defaults."""
    if name == "autoattack":
        return {"eps": inspect.Parameter.empty, "norm": "linf", "version": "standard"}
    parameters = dict(inspect.signature(ATTACKS[name]).parameters)
    if name == "fgsm":  # whose further options are those of PGD
        own = set(parameters) | {"num_steps", "step_size"}
        parameters |= {key: value for key, value in inspect.signature(pgd).parameters.items() if key not in own}
    if name in ("fgsm", "pgd"):
        parameters["tau"] = inspect.Parameter("tau", inspect.Parameter.KEYWORD_ONLY, default=None)
    return {key: value.default for key, value in parameters.items() if key not in _NO_OPTIONS}


def _resolve(
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
