"""Named choices with typed options: objectives and tunings are dataclasses, made from a name and a dict of options."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def make(kind: str, choices: Mapping[str, type[T]], name: str, options: Mapping[str, Any] | None = None) -> T:
    """An instance of the dataclass that `choices` has under a name; `kind` is what messages call it.

    Raises:
        ValueError: for an unknown name or option, or an option's value of the wrong kind.
    """
    if name not in choices:
        raise ValueError(f"There is no {kind} {name!r}. Choose one of {sorted(choices)}.")
    options, cls = dict(options or {}), choices[name]
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(options) - known)
    title = f"{kind.capitalize()} {name!r}"
    if unknown:
        raise ValueError(f"{title} has no option {', '.join(unknown)}. It has: {sorted(known) or 'none'}.")
    types_of = typing.get_type_hints(cls)
    checked = {option: _check(title, types_of[option], option, value) for option, value in options.items()}
    try:
        return cls(**checked)
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error


def _check(title: str, annotation: Any, option: str, value: Any) -> Any:
    """The value as the annotated type; numbers may come as text, as YAML 1.1 leaves `1e-3`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(annotation):
            return None
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
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
    if annotation in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return value, False
        valid = annotation is float or number == int(number)
        return annotation(number) if valid else value, valid
    return value, annotation not in (int, float) and isinstance(value, typing.get_origin(annotation) or annotation)


def known(name: str, value: str, choices) -> str:
    """The value, or a `ValueError` that lists the choices."""
    if value not in choices:
        raise ValueError(f"There is no {name} {value!r}. Choose one of {sorted(choices)}.")
    return value
