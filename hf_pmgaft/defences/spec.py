"""`DefenceSpec`: a defence with all of its options, as an evaluation is asked for it, makes it and reports it."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..registry import check_choice, check_kind, near_misses, read_choice
from ..zero_shot.classifier import ZeroShotClassifier
from . import DEFENCES
from .defence import Defence


@dataclass(frozen=True)
class DefenceSpec:
    """A defence with its options: what wraps a classifier, and how tables call it.

    Make one by [`DefenceSpec.of`], which checks and completes it, or [`DefenceSpec.parse`]. The constructor takes what
    a report has stored, as it is.

    Args:
        name (`str`): One of `hf_pmgaft.defences.DEFENCES`.
        options (`dict`): The defence's own options by name, such as `eps`.

    Example:
        >>> spec = DefenceSpec.parse("random_noise,eps=8/255")
        >>> spec.title, spec.is_random, spec.to_dict()
        ('random noise (eps=8/255)', True, {'defence': 'random_noise', 'eps': '8/255'})
    """

    name: str
    options: Mapping[str, Any]

    # ---- Made from what a user passes, and turned back into it ----

    @classmethod
    def of(cls, value: DefenceSpec | Mapping[str, Any] | str) -> DefenceSpec:
        """A checked defence with all of its options, from a dict, a text or another one.

        A dict is such as `{"defence": "random_noise", "eps": "4/255"}`.

        Raises:
            ValueError: says what is wrong with it.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, (DefenceSpec, Mapping)):
            raise ValueError(
                f"You passed the defence {value!r}, which is no description of one. Pass such as "
                "'random_noise,eps=4/255' or {'defence': 'random_noise', 'eps': '4/255'}."
            )
        given = value.to_dict() if isinstance(value, DefenceSpec) else dict(value)
        name = given.pop("defence", None)
        check_choice("defence", name, DEFENCES)
        return cls(name, _complete(name, given))

    @classmethod
    def parse(cls, text: str) -> DefenceSpec:
        """A checked defence from a text such as `"random_noise,eps=4/255"`.

        Raises:
            ValueError: says what is wrong with it.
        """
        return cls.of(read_choice("defence", text, example="random_noise,eps=4/255"))

    @classmethod
    def stored(cls, entry: Mapping[str, Any]) -> DefenceSpec:
        """The defence of an entry that [`DefenceSpec.to_dict`] made, of whatever version, as it stands there."""
        options = dict(entry)
        return cls(options.pop("defence"), options)

    def to_dict(self) -> dict[str, Any]:
        """The defence as reports store it: its name under `"defence"`, and its options."""
        return {"defence": self.name, **self.options}

    # ---- What it is ----

    @property
    def title(self) -> str:
        """The defence as tables name it, such as `random noise (eps=8/255)`: options off their defaults follow."""
        if self.name not in DEFENCES:  # of another version
            return self.name
        defaults = _defaults_of(self.name)
        others = {key: value for key, value in self.options.items() if value != defaults.get(key)}
        listed = ", ".join(f"{key}={value}" for key, value in others.items())
        title = DEFENCES[self.name].title
        return f"{title} ({listed})" if listed else title

    @property
    def is_random(self) -> bool:
        """Whether its logits follow from seeds, too."""
        return DEFENCES[self.name].is_random

    @property
    def attackers(self) -> tuple[str, ...]:
        """Those of `ATTACKERS` that differ on it."""
        return DEFENCES[self.name].attackers

    # ---- What it does ----

    def check(self, model: nn.Module, processor: Any, has_head: bool) -> None:
        """Raises `ValueError` if it cannot serve an encoder.

        Args:
            has_head (`bool`): Whether a head, such as a linear probe, tells classes apart instead of their names.
        """
        DEFENCES[self.name].check(model, processor, has_head)

    def wrap(
        self,
        classifier: ZeroShotClassifier,
        model: nn.Module | None = None,
        processor: Any = None,
        class_names: Sequence[str] | None = None,
        prompt_templates: str | Sequence[str] | None = None,
    ) -> Defence:
        """The defended classifier.

        Args:
            model, processor (*optional*): Of the classifier, for defences with texts of their own.
            class_names, prompt_templates (`list[str]`, *optional*): What the classifier's classes were encoded from.
        """
        cls = DEFENCES[self.name]
        return cls.of(classifier, model, processor, class_names, prompt_templates, **self.options)


def _complete(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a defence, checked."""
    defaults = _defaults_of(name)
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(
            f"The defence {name!r} takes no {near_misses(unknown, defaults)}. It takes: {sorted(defaults) or 'none'}."
        )

    title = f"The defence {name!r}"
    annotations = typing.get_type_hints(DEFENCES[name].__init__)
    options = {key: given.get(key, default) for key, default in defaults.items()}
    for key, value in options.items():
        if not _is_length(annotations[key]):
            options[key] = check_kind(title, annotations[key], key, value)
        if annotations[key] is float and not 0 <= options[key] < math.inf:
            raise ValueError(f"{title} cannot take {key}={value!r}. Pass a number of 0 or more.")
    try:
        _construct(name, options)
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error
    return options


def _defaults_of(name: str) -> dict[str, Any]:
    """All options of a defence with their defaults: the keyword-only arguments of its constructor."""
    parameters = inspect.signature(DEFENCES[name]).parameters
    return {key: row.default for key, row in parameters.items() if row.kind is inspect.Parameter.KEYWORD_ONLY}


def _is_length(annotation: Any) -> bool:
    """Whether an option is a radius or a step, a number or a text, which its constructor reads."""
    return isinstance(annotation, types.UnionType) and {float, str} <= set(typing.get_args(annotation))


def _construct(name: str, options: Mapping[str, Any]) -> None:
    """Makes a defence around nothing, so that its constructor checks the options."""
    parameters = inspect.signature(DEFENCES[name]).parameters.values()
    nothing = [None for row in parameters if row.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    DEFENCES[name](*nothing, **options)
