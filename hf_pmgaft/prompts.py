"""Class names and prompt templates: what they must be, and how a name stands in a prompt."""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_PROMPT_TEMPLATES = ("This is a photo of a {}",)


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """Returns the names as a list, or raises `ValueError` if one is empty or stands twice.

    Example:
        >>> check_class_names(("tree frog", "toad"))
        ['tree frog', 'toad']
    """
    if isinstance(class_names, str):
        raise ValueError(f"You passed the text {class_names!r} as class names. Pass a list with one name per class.")
    names = list(class_names)
    if len(names) < 2:
        raise ValueError(f"You passed {len(names)} class name(s); a classifier needs at least 2. Pass `class_names`.")

    empty = [i for i, name in enumerate(names) if not isinstance(name, str) or not name.strip()]
    if empty:
        raise ValueError(f"Class names {empty} are empty, so no prompt can be made of them. Give each class a name.")

    first: dict[str, int] = {}
    for i, name in enumerate(names):
        earlier = first.setdefault(prompt_name(name), i)
        if earlier != i:
            raise ValueError(
                f"Classes {earlier} and {i} share the name {name!r}; their text embeddings would be "
                "the same and no image could be told apart. Give each class its own name."
            )
    return names


def check_prompt_templates(prompt_templates: str | Sequence[str]) -> list[str]:
    """Returns the templates as a list, or raises `ValueError` if one has not exactly one `{}`.

    Example:
        >>> check_prompt_templates("a photo of a {}")
        ['a photo of a {}']
    """
    templates = [prompt_templates] if isinstance(prompt_templates, str) else list(prompt_templates)
    unusable = [template for template in templates if template.count("{}") != 1]
    if unusable or not templates:
        raise ValueError(
            f"Prompt templates {unusable or templates} cannot take a class name. Write each with one {{}}, as in "
            f"{DEFAULT_PROMPT_TEMPLATES[0]!r}."
        )
    return templates


def prompt_name(name: str) -> str:
    """Writes a class name as it stands in a prompt: lower case; `_`, `-` and `/` become spaces.

    Example:
        >>> prompt_name("Tree_Frog")
        'tree frog'
    """
    return " ".join(name.lower().translate(str.maketrans("_-/", "   ")).split())
