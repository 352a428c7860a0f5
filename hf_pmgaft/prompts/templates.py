"""Prompt templates: texts with one place for a class name."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence, Set
from typing import Any

from .characters import check_visible

DEFAULT_PROMPT_TEMPLATES = ("This is a photo of a {}",)


def check_prompt_templates(prompt_templates: str | Sequence[str]) -> list[str]:
    """Returns the templates as a list, or raises `ValueError` if one has not exactly one `{}`.

    Example:
        >>> check_prompt_templates("a photo of a {}")
        ['a photo of a {}']
    """
    if prompt_templates is None or isinstance(prompt_templates, (Mapping, Set, int, float)):
        raise ValueError(
            f"You passed {prompt_templates!r:.80} as prompt templates, which is no list of texts. Pass a text with "
            f"one {{}}, as in {DEFAULT_PROMPT_TEMPLATES[0]!r}, or a list of them."
        )
    templates = [prompt_templates] if isinstance(prompt_templates, str) else list(prompt_templates)
    unusable = [template for template in templates if not _takes_a_name(template)]
    if unusable or not templates:
        raise ValueError(
            f"Prompt templates {str(unusable or templates):.200} cannot take a class name. Write each with one {{}}, "
            f"as in {DEFAULT_PROMPT_TEMPLATES[0]!r}."
        )
    for template in templates:
        check_visible(template, "The prompt template")
    return templates


def _takes_a_name(template: Any) -> bool:
    """Whether a template has one `{}`, and nothing else that `str.format` reads; of `{{}}` it makes no place."""
    if not isinstance(template, str) or template.count("{}") != 1:
        return False
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError:  # a single brace
        return False
    return [field[1:] for field in fields] == [("", "", None)]
