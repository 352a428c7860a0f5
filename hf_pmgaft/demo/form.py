"""What visitors type and choose, made into what the package takes. What cannot work is refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..attacks import LOSSES, WALKS
from ..attacks.options import NORMS, defaults_of
from ..attacks.spec import AttackSpec
from ..fingerprints import digest
from ..prompts import check_prompt_templates, parse_class_names
from ..registry import check_choice
from .bench import Picture
from .settings import Settings

# White-box walks, and an ensemble of them: what tells something about one picture while a visitor waits.
ATTACKS = (*WALKS, "autoattack")
AUTOATTACK = "fast"
# How radii are chosen: the largest, the step, and what is chosen at first.
LEVELS = 255


@dataclass(frozen=True)
class Scale:
    """A slider for radii of one norm.

    Args:
        most (`float`), step (`float`), first (`float`): Its end, its step and its first value.
        unit (`str`): What stands behind a value.

    Example:
        >>> SCALES["linf"].radius(4), SCALES["l2"].radius(0.5)
        ('4/255', '0.5')
    """

    most: float
    step: float
    first: float
    unit: str = ""

    def radius(self, value: float) -> str:
        """The radius that a value stands for, as attacks take it."""
        return f"{value:g}{self.unit}"


SCALES = {
    "linf": Scale(most=16, step=1, first=4, unit=f"/{LEVELS}"),
    "l2": Scale(most=4, step=0.05, first=0.5),
    "l1": Scale(most=64, step=0.5, first=12),
}
MOST_TEXT = 200_000  # characters of names and templates
MOST_SEED = 2**31 - 1
PROMPTS_PER_CLASS = 10  # at the largest number of classes


def norms_of(attack: str) -> list[str]:
    """The norms that an attack knows, L-inf first.

    Example:
        >>> norms_of("pgd"), norms_of("autoattack")
        (['linf', 'l2'], ['linf', 'l2', 'l1'])
    """
    return [norm for norm in SCALES if norm in NORMS[attack]]


def losses_of(attack: str) -> list[str]:
    """The losses that an attack can climb; none if it has its own.

    Example:
        >>> losses_of("pgd"), losses_of("cw")
        (['ce', 'dlr', 'margin'], [])
    """
    return sorted(LOSSES) if "loss" in defaults_of(attack) else []


def has_steps(attack: str) -> bool:
    """Whether an attack goes as many steps as it is told.

    Example:
        >>> has_steps("pgd"), has_steps("fgsm")
        (True, False)
    """
    return "num_steps" in defaults_of(attack)


def attack_of(attack: Any, norm: Any, radius: Any, num_steps: Any, loss: Any, settings: Settings) -> AttackSpec:
    """The attack that was chosen, checked and complete. Options that it does not take are left out.

    Raises:
        ValueError: for what is no attack, and more steps or a larger radius than the page allows.

    Example:
        >>> attack_of("pgd", "linf", 4, 20, "margin", Settings()).name
        'PGD-20 margin linf 4/255'
    """
    check_choice("attack", attack, ATTACKS)
    check_choice("norm", norm, norms_of(attack))
    scale = SCALES[norm]
    radius = number_of("radius", radius, 0, scale.most)
    options: dict[str, Any] = {"attack": attack, "norm": norm, "eps": scale.radius(radius)}
    if attack == "autoattack":
        options["version"] = AUTOATTACK
    if has_steps(attack):
        options["num_steps"] = whole_of("steps", num_steps, 1, settings.max_steps)
    if losses_of(attack) and loss:
        options["loss"] = loss
    return AttackSpec.of(options)


def classes_of(names: Any, templates: Any, settings: Settings) -> tuple[list[str], list[str]]:
    """The class names and prompt templates that were typed.

    Raises:
        ValueError: as [`class_names_of`] and [`templates_of`], and for more prompts than the page allows.

    Example:
        >>> classes_of("cat, dog", "a photo of {}", Settings())
        (['cat', 'dog'], ['a photo of {}'])
    """
    class_names = class_names_of(names, settings)
    prompts = templates_of(templates)
    most = PROMPTS_PER_CLASS * settings.max_classes
    if len(class_names) * len(prompts) > most:
        raise ValueError(
            f"You passed {len(class_names):,} class names and {len(prompts):,} templates, which make "
            f"{len(class_names) * len(prompts):,} prompts; at most {most:,} are encoded. Leave some templates out."
        )
    return class_names, prompts


def class_names_of(text: Any, settings: Settings) -> list[str]:
    """The class names that were typed, by line or by comma.

    Raises:
        ValueError: as [`~hf_pmgaft.prompts.parse_class_names`], and for more than the page allows.

    Example:
        >>> class_names_of("cat, dog", Settings())
        ['cat', 'dog']
    """
    return parse_class_names(text_of("class names", text), settings.max_classes)


def templates_of(text: Any) -> list[str]:
    """The prompt templates that were typed, one a line; none means the package's own.

    Example:
        >>> templates_of("a photo of {}\\nan emoji of {}")
        ['a photo of {}', 'an emoji of {}']
    """
    templates = [line.strip() for line in text_of("prompt templates", text).splitlines() if line.strip()]
    return list(check_prompt_templates(templates)) if templates else []


def name_or_none(what: str, text: Any) -> str | None:
    """A class that was typed or chosen, or `None`.

    Example:
        >>> name_or_none("label", " ") is None
        True
    """
    return text_of(what, text).strip() or None


def text_of(what: str, value: Any) -> str:
    """A text, or nothing.

    Raises:
        ValueError: for what is none, and for one that is too long.

    Example:
        >>> text_of("label", None)
        ''
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"You passed a {type(value).__name__} as {what}. Pass a text.")
    if len(value) > MOST_TEXT:
        raise ValueError(
            f"You passed {what} of {len(value):,} characters, where at most {MOST_TEXT:,} are taken. Leave some out."
        )
    return value


def number_of(what: str, value: Any, least: float, most: float) -> float:
    """A number in its limits.

    Raises:
        ValueError: for another one, and for what is none.

    Example:
        >>> number_of("radius", 4, 0, 16)
        4.0
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"You passed {what} {value!r:.80}, which is no number from {least:g} to {most:g}. Pass one.")
    return float(value)


def whole_of(what: str, value: Any, least: int, most: int) -> int:
    """A whole number in its limits.

    Raises:
        ValueError: for another one, and for what is none.

    Example:
        >>> whole_of("steps", 20.0, 1, 200)
        20
    """
    number = number_of(what, value, least, most)
    if number != int(number):
        raise ValueError(f"You passed {what} {value!r:.80}, which is no whole number. Pass one.")
    return int(number)


def row_of(value: Any) -> int | None:
    """The number of a row that was typed, or `None`.

    Raises:
        ValueError: for what is no number.

    Example:
        >>> row_of(" 12 "), row_of("")
        (12, None)
    """
    text = text_of("row", value).strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise ValueError(f"You passed the row {text!r:.80}, which is no number of one. Pass a number from 0, or none.")
    return int(text)


def picture_of(value: Any, drawn: tuple[str, int, str] | None, folder: Path) -> Picture:
    """The picture that lies on the page: the file of a visitor, or the row that he drew.

    Args:
        value (`dict`, *optional*): What Gradio hands on of the file, unread.
        drawn (`tuple[str, int, str]`, *optional*): What was drawn last: set, row, and the digest of its file. Another
            file has come in its place since if its digest is another.
        folder (`Path`): Where uploads lie. What lies elsewhere is no upload.

    Raises:
        ValueError: if there is none.

    Example:
        >>> picture_of(None, None, Path("uploads"))
        Traceback (most recent call last):
        ValueError: There is no image. Drop one into the page, or draw one from a set.
    """
    place = value.get("path") if isinstance(value, Mapping) else None
    if not isinstance(place, str) or not place:
        raise ValueError("There is no image. Drop one into the page, or draw one from a set.")
    file = Path(place).resolve()
    if folder.resolve() not in file.parents or not file.is_file():
        raise ValueError("The image is here no more. Drop it into the page again.")

    name = value.get("orig_name")
    name = PurePosixPath(name.replace("\\", "/")).name if isinstance(name, str) else file.name
    content = file.read_bytes()
    set_text, row = None, 0
    if drawn is not None and drawn[2] == digest([content]):
        set_text, row, _ = drawn
    return Picture(name or file.name, content, set_text, row)


def file_name(name: str) -> str:
    """A name of a model, as files may be called.

    Example:
        >>> file_name("embedded CLIP, robust")
        'embedded-CLIP-robust'
    """
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "model"


def lines_of(names: Sequence[str]) -> str:
    """Class names or templates as a text field shows them: one a line.

    Example:
        >>> lines_of(["cat", "dog"])
        'cat\\ndog'
    """
    return "\n".join(names)
