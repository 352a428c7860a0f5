"""`AttackSpec`: an attack with all of its options, as an evaluation is asked for it, runs it and reports it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..registry import check_choice
from . import ATTACKS, DENSE_ATTACKS, SERVED_BY_FIRST_FOOLED, WALKS
from .any_iterate import first_fooled
from .autoattack import VERSIONS, components
from .ball import inside, parse_radius, parse_step_size, round_levels_inside
from .dense import ByLargestLogit, Segments, walk_dense
from .dense_checks import check_dense, check_whole, is_of_pixels
from .dense_losses import DENSE_LOSSES
from .early_stopped import early_stopped_pgd
from .lettering import READABLE, band_of
from .losses import LOSSES
from .options import OF_ATTACKERS, complete, defaults_of, parse_options, resolve, try_attack
from .pgd import default_step_size
from .sea import sea
from .typographic import Written, check_typography, write_words
from .walk import Walk

_NAMES = {"apgd_t": "APGD-T", "fab_t": "FAB-T", "square": "Square"}
# Options that stand in an attack's name anyway.
_NAMED = {
    "pgd": {"num_steps", "loss", "restarts"},
    "fgsm": {"loss"},
    "apgd": {"loss", "restarts"},
    "sea": {"num_steps", "restarts"},
    "typographic": {"height", "letters"},
    "universal": {"digest", "file", "made_for"},
}
_CLASSES = {"apgd_t": 4, "dlr": 3}
# What an option becomes in the trial on a small image.
_ONCE = ("num_queries", "num_targets", "places", "restarts", "search_steps", "size", "words")
_CHEAP = {"num_steps": 4, **dict.fromkeys(_ONCE, 1)}


@dataclass(frozen=True)
class AttackSpec:
    """An attack with its options: what is run, what it may do, and how tables call it.

    Make one by [`AttackSpec.of`], which checks and completes it, or [`AttackSpec.parse`]. The constructor takes what a
    report has stored, as it is.

    Args:
        attack (`str`): One of `hf_pmgaft.attacks.ATTACKS` or `DENSE_ATTACKS`, or `"autoattack"`.
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
        check_choice("attack", name, [*ATTACKS, *DENSE_ATTACKS, "autoattack"])
        spec = cls(name, complete(name, given))
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

    def by(self, attacker: str, eot: int | None = None) -> AttackSpec:
        """The same attack by one of `ATTACKERS` on a defended classifier, of `eot` draws a step if that is random.

        Example:
            >>> AttackSpec.parse("fgsm,eps=4/255").by("through", eot=4).name
            'FGSM ce linf 4/255 (attacker=through, eot=4)'
        """
        of_defence = {"attacker": attacker} if eot is None else {"attacker": attacker, "eot": eot}
        return AttackSpec(self.attack, {**self._own_options, **of_defence})

    # ---- What it is ----

    @property
    def attacker(self) -> str | None:
        """Which of `ATTACKERS` it is by, if it is one on a defended classifier."""
        return self.options.get("attacker")

    @property
    def source(self) -> str | None:
        """The model that its images are made on, if that is another than the one that they judge."""
        return self.options.get("source")

    @property
    def source_name(self) -> str | None:
        """What tables call the source: its name, of a longer path the last part.

        Example:
            >>> AttackSpec.parse("pgd,eps=4/255,source=/home/me/runs/robust").source_name
            'robust'
        """
        if self.source is None:
            return None
        path = Path(self.source)
        is_long = path.is_absolute() or len(path.parts) > 2 or path.parts[:1] in [("..",), ("~",)]
        return path.name if is_long and path.name else path.as_posix()

    @property
    def norm(self) -> str | None:
        """The norm of the ball, if the threat is one; a universal perturbation is one point of it."""
        has_ball = "eps" in self.options and self.attack != "universal"
        return self.options.get("norm", "linf") if has_ball else None

    @property
    def radius(self) -> float:
        """The radius of the ball, in the scale of images in [0,1]."""
        return parse_radius(self.options["eps"], self.options.get("norm", "linf"))

    @property
    def threat(self) -> str:
        """What the attacker may do, such as `linf 4/255`; attacks of one threat make one worst case.

        Who makes images on another model can do less, and is a threat of its own: `linf 4/255 from robust`.
        """
        return self.change if self.source is None else f"{self.change} from {self.source_name}"

    @property
    def change(self) -> str:
        """What may become of an image, whoever makes it."""
        if self.attack == "patch":
            return f"patch {self.options['size']}x{self.options['size']}"
        if self.attack == "corruption":
            return f"{self.options['kind']} {self.options['severity']}"
        if self.attack == "typographic":
            return f"typographic {self.options['letters']} {100 * self.options['height']:g}%"
        if self.attack == "universal":
            return f"universal {self.options['norm']} {self.options['eps']}"
        return f"{self.norm} {self.options['eps']}"

    @property
    def name(self) -> str:
        """The attack as tables name it, such as `PGD-20 margin linf 4/255`; options off their defaults follow."""
        if self.attack == "corruption":
            return self.threat
        if self.attack == "autoattack":
            name, others = f"AutoAttack {self.options['version']} {self.threat}", self._of_attacker
            others.pop("source", None)
            return f"{name} ({_listed(others)})" if others else name

        # What every table wants to know
        options, walks = self.options, self.attack in ("pgd", "fgsm")
        title = _NAMES.get(self.attack, self.attack.upper())
        if (walks or self.attack == "sea") and "num_steps" in options:
            title += f"-{options['num_steps']}"
        if self.attack == "apgd":
            title += f"-{options.get('loss', 'ce').upper()}"
        if self.attack in _NAMED and options.get("restarts", 1) > 1:
            title += f" x{options['restarts']}"
        if walks:
            title += f" {options.get('loss', 'ce')}"

        # What is off its default
        shown = {"eps", "norm", "size", "source", "step_size"} | _NAMED.get(self.attack, set())
        defaults = defaults_of(self.attack)
        others = {key: value for key, value in options.items() if key not in shown and value != defaults.get(key)}
        if self._has_another_step():
            others["step_size"] = options["step_size"]

        name = f"{title} {self.threat.removeprefix('patch ')}"
        if self.attack == "typographic":
            name = self.threat
        if self.attack == "universal":
            name = f"{self.threat} {Path(options['file']).stem} {options['digest']}"
        return f"{name} ({_listed(others)})" if others else name

    def expand(self, num_classes: int) -> list[AttackSpec]:
        """The attacks that this one stands for on a set of so many classes.

        Raises:
            ValueError: if the attack cannot handle so few classes.
        """
        if self.attack == "autoattack":
            parts = components(
                self.options["version"], num_classes, eps=self.options["eps"], norm=self.options["norm"]
            )
            return [AttackSpec.of({**part, **self._of_attacker}) for part in parts]

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
        class_names: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """Adversarial images of one batch, `[B,C,H,W]` in [0,1].

        Args:
            any_iterate (`bool`): Whether walks end at the first misclassified point, for attacks that leave the
                choice.
            targeted (`bool`): Whether `labels` are the classes to reach, for PGD and FGSM.
            class_names (`list[str]`, *optional*): One per class, for attacks that write them.
        """
        check_whole(self)
        attack, options = resolve(ATTACKS[self.attack], self._own_options)
        if targeted:
            options["targeted"] = True
        if self.attack == "typographic":
            options["class_names"] = class_names
        if any_iterate and self.norm in SERVED_BY_FIRST_FOOLED.get(self.attack, ()):
            if attack is early_stopped_pgd:
                raise ValueError(
                    "You passed tau with the verdict any_iterate, where a walk ends at the first wrong class. Leave "
                    "tau out, or pass verdict='last_iterate'."
                )
            attack = partial(first_fooled, attack)
        return attack(classifier, images, labels, seeds=seeds, **options)

    def write(
        self,
        classifier: Callable[[torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        labels: torch.Tensor,
        seeds: torch.Tensor,
        *,
        class_names: Sequence[str],
    ) -> Written:
        """As [`AttackSpec.run`] of a typographic attack; tells what stands on each image, and how much that covers."""
        options = {**self._own_options, "class_names": class_names}
        return write_words(classifier, images, labels, seeds=seeds, **options)

    def run_dense(
        self,
        segmenter: Segments,
        images: torch.Tensor,
        masks: torch.Tensor,
        seeds: torch.Tensor,
        *,
        any_iterate: bool = False,
    ) -> torch.Tensor:
        """Adversarial images of one batch whose pixels are classified, `[B,C,H,W]` in [0,1], float32.

        Args:
            segmenter (`Segments`): Images in [0,1] -> logits `[B,K,H,W]`, and a `predict`.
            masks (`torch.Tensor`): `[B,H,W]`, int64: class indices, below 0 where ignored. An image without a labelled
                pixel comes back as it is.
            any_iterate (`bool`): Whether of all points that walks come by, and the image itself, the one is taken at
                which the fewest labelled pixels are right, the latest among equals; else of their last points. `sea`
                goes by the former alone.

        Raises:
            ValueError: for what is no attack on pixels; see [`check_dense`].
        """
        check_dense(self)
        options = self._own_options
        if self.attack == "sea":
            return sea(segmenter, images, masks, seeds=seeds, **options)
        options.pop("tau", None)
        loss = options.pop("loss", "ce")
        return walk_dense(
            WALKS[self.attack](**options),
            segmenter,
            images,
            masks,
            seeds,
            eps=self.radius,
            norm=self.norm,
            loss=loss,
            num_steps=options.get("num_steps", 1),
            any_iterate=any_iterate,
        )

    def walk(self, num_classes: int) -> Walk | None:
        """The attack as walks that run in any company, on so many classes; `None` if it runs batch by batch."""
        check_whole(self)
        options = self._own_options
        if self.attack not in WALKS or options.pop("tau", None) is not None:
            return None
        if "num_targets" in options:
            options["num_classes"] = num_classes
        return WALKS[self.attack](**options)

    def allows(self, images: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
        """Which adversarial images are what the threat allows, `[B]`: finite, in [0,1], inside the ball, under one
        square, or in as many rows as a text may take."""
        flat = adversarial.flatten(1)
        valid = torch.isfinite(flat).all(1) & (flat.amin(1) >= 0) & (flat.amax(1) <= 1)
        if self.norm or self.attack == "universal":
            return valid & inside(images, adversarial, self.radius, self.norm or "linf")
        changed = (adversarial != images).any(1)
        if self.attack == "patch":
            for side in (changed.any(1), changed.any(2)):
                valid &= _extent(side) <= self.options["size"]
        if self.attack == "typographic":
            valid &= _extent(changed.any(2)) <= band_of(self.options["height"], images.shape[-2])
        return valid

    def round_to_8_bits(self, images: torch.Tensor, adversarial: torch.Tensor) -> torch.Tensor:
        """Adversarial images as 8-bit files hold them, by grey levels inside the ball where there is one."""
        if self.norm or self.attack == "universal":
            return round_levels_inside(images, adversarial, self.radius, self.norm or "linf")
        return ((adversarial * 255).round() / 255).clamp(0, 1)

    @property
    def _own_options(self) -> dict[str, Any]:
        """What the attack's function is called with."""
        return {key: value for key, value in self.options.items() if key not in OF_ATTACKERS}

    @property
    def _of_attacker(self) -> dict[str, Any]:
        return {key: self.options[key] for key in OF_ATTACKERS if key in self.options}

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

        if "loss" in self.options:
            check_choice("loss", self.options["loss"], {*LOSSES, *DENSE_LOSSES})
        cheap = {key: min(value, self.options[key]) for key, value in _CHEAP.items() if key in self.options}
        if is_of_pixels(self):
            image = torch.full((1, 3, 4, 4), 0.5)
            mask, seed = torch.zeros((1, 4, 4), dtype=torch.int64), torch.tensor([0])
            AttackSpec(self.attack, {**self._own_options, **cheap}).run_dense(
                ByLargestLogit(torch.neg), image, mask, seed
            )
            return

        attack, options = resolve(ATTACKS[self.attack], self._own_options)
        options.update({key: value for key, value in cheap.items() if key in options})
        size = 16
        if self.attack == "typographic":  # whose words need room
            options["class_names"] = list("abcd")
            check_typography(options["height"], options["letters"], options["colour"])
            size = min(512, math.ceil(2 * READABLE / options["height"]))
        try_attack(f"The attack {self.to_dict()}", partial(attack, seeds=torch.tensor([0])), options, size)


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _extent(side: torch.Tensor) -> torch.Tensor:
    """From the first to the last of what changed along a side, `[B,L] -> [B]`; 0 or less if nothing did."""
    place = torch.arange(side.shape[1], device=side.device)
    first = place.where(side, len(place)).amin(1)
    last = place.where(side, -1).amax(1)
    return last - first + 1
