"""ScienceQA (Lu et al., NeurIPS 2022, arXiv 2209.09513): which choice a text names, by the rule of LLaVA's authors."""

from __future__ import annotations

import re
from collections.abc import Sequence

LETTERS = "ABCDE"
NONE = -1  # a text that names no choice, which is wrong


def read_choice(text: str, num_choices: int) -> int:
    """The choice that a text names: a letter alone, a letter with full stop and space, or "The answer is A." once.

    Returns:
        `int`: Its index, or -1 for none and for a letter beyond the choices.

    Example:
        >>> read_choice("B", 3), read_choice("A. because", 2), read_choice("The answer is C.", 3), read_choice("E", 4)
        (1, 0, 2, -1)
    """
    if text in list(LETTERS):
        letter = text
    elif re.match(rf"[{LETTERS}]\. ", text):
        letter = text[0]
    else:
        named = re.findall("The answer is ([A-Z]).", text)
        letter = named[0] if len(named) == 1 else ""
    return LETTERS.index(letter) if letter and letter in LETTERS[:num_choices] else NONE


def choice_prompt(question: str, choices: Sequence[str], hint: str = "") -> str:
    """A question with its choices as letters, and what to answer with, as LLaVA's authors put it.

    Raises:
        ValueError: for fewer than 2 choices or more than 5.

    Example:
        >>> print(choice_prompt("Which is soft?", ["a rock", "wool"]))
        Which is soft?
        A. a rock
        B. wool
        Answer with the option's letter from the given choices directly.
    """
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(
            f"You passed {len(choices)} choices for {question!r}, which are to be named by the letters A to E. Pass 2 "
            "to 5."
        )
    options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    context = [f"Context: {hint}"] if hint else []
    return "\n".join(
        [*context, question, *options, "Answer with the option's letter from the given choices directly."]
    )
