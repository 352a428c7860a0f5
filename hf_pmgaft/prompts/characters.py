"""Characters that nobody sees, and that make another text of a name for a tokenizer."""

from __future__ import annotations

import unicodedata

# Parts of letters in scripts such as Persian, and of emoji; tags spell the flags of regions.
JOINERS = {"\u200c", "\u200d", *map(chr, range(0xE0020, 0xE0080))}


def check_visible(text: str, what: str) -> None:
    """Raises `ValueError` for a text with a control or zero-width character; white space is none.

    Args:
        text (`str`): A name, a template or a line of a file.
        what (`str`): What the message calls it.

    Example:
        >>> check_visible("cat\\u200b", "class name 3")
        Traceback (most recent call last):
        ValueError: class name 3, 'cat\\u200b', holds the invisible U+200B (ZERO WIDTH SPACE), ...
    """
    for place in _invisible_places(text):
        character = text[place]
        name = unicodedata.name(character, "a control character")
        raise ValueError(
            f"{what}, {text!r:.80}, holds the invisible U+{ord(character):04X} ({name}), which makes another text of "
            "it than the one that is seen. Remove it."
        )


def without_invisible(text: str) -> str:
    """The text without the characters that [`check_visible`] refuses.

    Example:
        >>> without_invisible("a cat\u200b on a so\u00adfa")
        'a cat on a sofa'
    """
    hidden = set(_invisible_places(text))
    return "".join(character for place, character in enumerate(text) if place not in hidden) if hidden else text


def shows(text: str) -> bool:
    """Whether there is anything to see in a text.

    Example:
        >>> shows("cat"), shows(" \u200b")
        (True, False)
    """
    return any(not _is_invisible(character) and not character.isspace() for character in text)


def _invisible_places(text: str) -> list[int]:
    """Where a text has a character that nobody sees and that is no part of a letter."""
    if text.isprintable():  # as nearly all are
        return []
    return [
        place
        for place, character in enumerate(text)
        if _is_invisible(character) and not (character in JOINERS and place and not text[place - 1].isascii())
    ]


def _is_invisible(character: str) -> bool:
    """Whether it is a control, format or half character. White space, which prompts collapse, is not."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and not character.isspace()
