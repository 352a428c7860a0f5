"""What models and reports are called, once it is sure that none was named twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_different(what: str, names: Sequence[str]) -> None:
    """Raises `ValueError` for a model that is named twice, be it by two spellings of one path.

    Example:
        >>> check_different("model", ["user/clip", "user/clip"])
        Traceback (most recent call last):
        ValueError: You passed a model twice: ['user/clip', 'user/clip']. Name each once.
    """
    places = [str(Path(name).resolve()) if Path(name).exists() else name for name in names]
    if len(set(places)) < len(places):
        raise ValueError(f"You passed a {what} twice: {list(names)}. Name each once.")


def short_names(what: str, names: Sequence[str]) -> list[str]:
    """What models or reports are called in pictures: the last two parts of their paths, if these tell them apart.

    Raises:
        ValueError: for one that is named twice.

    Example:
        >>> short_names("model", ["outputs/plain", "a/b/robust"])
        ['outputs/plain', 'b/robust']
    """
    check_different(what, names)
    short = ["/".join(Path(name).parts[-2:]) for name in names]
    return short if len(set(short)) == len(short) else list(names)
