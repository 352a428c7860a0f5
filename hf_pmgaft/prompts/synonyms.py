"""Class names with synonyms: several names of one class, each of which stands for it."""

from __future__ import annotations

from collections.abc import Sequence

from .class_names import check_class_names
from .names import names_in_order, prompt_name
from .shipped import shipped_class_names, shipped_lists

BACKGROUND = "background"


def check_synonyms(
    class_names: Sequence[str | Sequence[str]] | str, background_by_threshold: bool = False
) -> list[list[str]]:
    """Returns all names of each class, or raises `ValueError` for a class without one, or two that share one.

    Args:
        class_names (`list` or `str`): For each class a list of names, or a text in which a comma separates them; an
            `id2label` of such; or the name of a list of the package, such as `"voc21"`.
        background_by_threshold (`bool`): Whether the first class is what no other class is sure of. Then it may have
            no name, and the bare word `"background"`, which describes nothing, is none.

    Example:
        >>> check_synonyms(["person, human", ["dog"]])
        [['person', 'human'], ['dog']]
        >>> check_synonyms(["background", "person", "dog"], background_by_threshold=True)
        [[], ['person'], ['dog']]
    """
    if isinstance(class_names, str) and class_names in shipped_lists():
        class_names = shipped_class_names(class_names)
    synonyms = [_split(names) if isinstance(names, str) else names for names in names_in_order(class_names)]
    for number, names in enumerate(synonyms):
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"Class {number} is called {names!r:.80}, which is no name. Pass a text or a list of texts per class."
            )
    synonyms = [list(names) for names in synonyms]
    if background_by_threshold and synonyms and [prompt_name(name) for name in synonyms[0]] == [BACKGROUND]:
        synonyms[0] = []

    # Each class, and all of them
    nameless = [number for number, names in enumerate(synonyms) if not names]
    if nameless and nameless != [0] * background_by_threshold:
        raise ValueError(f"Classes {nameless} have no name, so no prompt can be made of them. Give each class one.")
    owners: dict[str, int] = {}
    for number, names in enumerate(synonyms):
        for name in names:
            owner = owners.setdefault(prompt_name(name), number)
            if owner != number or [prompt_name(each) for each in names].count(prompt_name(name)) > 1:
                raise ValueError(
                    f"The name {name!r:.60} stands for class {owner} and again for class {number}, so that no pixel "
                    "could be told by it. Write each name once."
                )
    check_class_names([name for names in synonyms for name in names])
    return synonyms


def _split(text: str) -> list[str]:
    """The names in a text, which commas separate."""
    return [name.strip() for name in text.split(",") if name.strip()]
