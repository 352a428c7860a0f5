"""Named choices with typed options: objectives and tunings are dataclasses, made from a name and a dict of options."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def make(kind: str, choices: Mapping[str, type[T]], name: str, options: Mapping[str, Any] | None = None) -> T:
    """Makes an instance of the dataclass that `choices` has under a name.

    Args:
        kind (`str`): What messages call a choice, such as `"objective"`.
        choices (`dict[str, type]`): Dataclasses by name.
        name (`str`): One of them.
        options (`dict`, *optional*): Values of its fields, of their types; numbers may come as text.

    Raises:
        ValueError: for an unknown name or option, or an option's value of the wrong kind.

    Example:
        >>> @dataclasses.dataclass
        ... class Sgd:
        ...     momentum: float = 0.0
        >>> make("optimizer", {"sgd": Sgd}, "sgd", {"momentum": "0.9"})
        Sgd(momentum=0.9)
    """
    check_choice(kind, name, choices)
    cls = choices[name]
    title = f"{kind.capitalize()} {name!r}"
    options = dict(options or {})

    fields = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(options) - fields)
    if unknown:
        raise ValueError(f"{title} has no option {', '.join(unknown)}. It has: {sorted(fields) or 'none'}.")

    annotations = typing.get_type_hints(cls)
    checked = {option: check_kind(title, annotations[option], option, value) for option, value in options.items()}
    try:
        return cls(**checked)
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error


def read_choice(kind: str, text: str, example: str) -> dict[str, Any]:
    """Reads a name and its options from a text, neither checked nor completed.

    Args:
        kind (`str`): What messages call a choice; the dict has the name under it.
        text (`str`): Such as `"sgd,momentum=0.9"`.
        example (`str`): What a message tells to write.

    Raises:
        ValueError: for what is no `option=value`, an option twice, and a value that YAML cannot read.

    Example:
        >>> read_choice("optimizer", "sgd,momentum=0.9", example="sgd,momentum=0.9")
        {'optimizer': 'sgd', 'momentum': 0.9}
    """
    name, *options = text.split(",")
    wrong = [option for option in options if "=" not in option]
    if wrong:
        raise ValueError(f"The {kind} {text!r} has {wrong}, which is no option=value. Write as {example}.")

    choice: dict[str, Any] = {kind: name.strip()}
    for option in options:
        key, value = option.split("=", 1)
        key = key.strip()
        if key in choice:
            raise ValueError(f"The {kind} {text!r} has {key} twice. Leave one of them out.")
        try:
            choice[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"The {kind} {text!r} has {key}={value}, which cannot be read. Correct it.") from None
    return choice


def near_misses(unknown: Sequence[str], options: Collection[str]) -> str:
    """Lists unknown options, each with the known one that was meant.

    Example:
        >>> near_misses(["--num-images", "-x"], ["num_images", "eps"])
        '--num-images (did you mean num_images?), -x'
    """
    hints = []
    for word in unknown:
        matches = difflib.get_close_matches(word.lstrip("-").replace("-", "_"), options, 1)
        hints.append(f"{word} (did you mean {matches[0]}?)" if matches else word)
    return ", ".join(hints)


def check_choice(kind: str, value: Any, choices: Collection[Any]) -> Any:
    """Returns the value, or raises a `ValueError` that lists the choices; `kind` is what the message calls it.

    Example:
        >>> check_choice("norm", "linf", ("l2", "linf"))
        'linf'
    """
    if not any(value == choice for choice in choices):  # also of what cannot be hashed, such as a list
        raise ValueError(f"There is no {kind} {value!r}. Choose one of {sorted(choices)}.")
    return value


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Returns a number of things, or raises a `ValueError` for one that is no integer from `least`.

    Example:
        >>> check_count("shots", 4)
        4
        >>> check_count("shots", 0)
        Traceback (most recent call last):
        ValueError: You passed shots=0, which is no count. Pass an integer from 1.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"You passed {name}={value!r}, which is no count. Pass an integer from {least}.")
    return int(value)


def check_kind(title: str, annotation: Any, option: str, value: Any) -> Any:
    """Returns the value as the annotated type, or raises a `ValueError`; `title` is what the message calls its owner.

    Numbers may come as text, as YAML 1.1 leaves `1e-3`.

    Example:
        >>> check_kind("Attack 'pgd'", float, "momentum", "1e-3")
        0.001
    """
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        alternatives = typing.get_args(annotation)
        if value is None and type(None) in alternatives:
            return None
        annotation = next(alternative for alternative in alternatives if alternative is not type(None))

    if typing.get_origin(annotation) is typing.Literal:
        choices = typing.get_args(annotation)
        valid = value in choices
    else:
        choices = KINDS.get(annotation, f"a {getattr(annotation, '__name__', annotation)}")
        value, valid = _convert(annotation, value)
    if not valid:
        raise ValueError(f"{title} cannot take {option}={value!r}. Pass {choices}.")
    return value


def _convert(annotation: Any, value: Any) -> tuple[Any, bool]:
    """The value as the annotated type, and whether it is one."""
    if annotation in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return value, False
        valid = annotation is float or number == int(number)
        return annotation(number) if valid else value, valid

    is_number = annotation in (int, float)
    return value, not is_number and isinstance(value, typing.get_origin(annotation) or annotation)
