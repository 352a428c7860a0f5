"""The command that attacks one picture again, written out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..attacks.options import write_options
from ..attacks.spec import AttackSpec
from ..embedded import NAME, name_embedded
from ..prompts import DEFAULT_PROMPT_TEMPLATES


def command_line(
    attack: AttackSpec | Mapping[str, Any] | str,
    class_names: Sequence[str] | None,
    *,
    image: str | None = None,
    eval_set: str | None = None,
    row: int = 0,
    models: Sequence[str] = (),
    processor: str | None = None,
    base: str | None = None,
    label: str | None = None,
    target: str | None = None,
    prompt_templates: str | Sequence[str] | None = None,
    seed: int = 0,
    output_folder: str | None = None,
) -> str:
    """The `pmgaft attack ...` that makes the images that [`attack_image`] makes by these settings, to the bit.

    Args:
        attack (`AttackSpec`, `dict` or `str`): The attack.
        class_names (`list[str]`, *optional*): All of them; those of `eval_set` if not given.
        image (`str`, *optional*): The picture's file; or
        eval_set (`str`, *optional*), row (`int`): The set that it is from, and its row there.
        models (`list[str]`): Hub ids, folders or files; the embedded one if empty.
        processor, base (`str`, *optional*): For models that have none, or hold weights alone or one tower.
        label, target, prompt_templates, seed: As of [`attack_image`].
        output_folder (`str`, *optional*): Where its files go.

    Raises:
        ValueError: for neither or both of `image` and `eval_set`, an image without class names, and an attack that no
            text can hold.

    Example:
        >>> command_line("pgd,eps=4/255", ["cat", "hot dog"], image="cat.png", label="cat", prompt_templates="a {}")
        "pmgaft attack cat.png --class_names cat 'hot dog' --prompt_template 'a {}' --label cat --attack pgd,eps=4/255"
    """
    if (image is None) == (eval_set is None) or (eval_set is None and class_names is None):
        raise ValueError(
            f"You passed image={image!r:.80}, eval_set={eval_set!r:.80} and {len(class_names or ())} class names. "
            "Pass an image with its class names, or a set."
        )

    # The picture and its classes
    words = ["pmgaft", "attack"]
    if image is not None:
        words.append(f"./{image}" if image.startswith("-") else image)
    else:
        words += [*_option("--eval_set", [name_embedded(eval_set)]), *_option("--row", [str(row)])]
    words += _option("--class_names", class_names or [])
    templates = [prompt_templates] if isinstance(prompt_templates, str) else prompt_templates
    words += _option("--prompt_template", templates or DEFAULT_PROMPT_TEMPLATES)

    # Models
    names = [name_embedded(model) for model in models]
    if names not in ([], [NAME]):
        words += _option("--models", names)
    for flag, value in (("--processor", processor), ("--base", base), ("--label", label), ("--target", target)):
        words += _option(flag, [] if value is None else [value])
    if label is None and eval_set is not None:
        words.append("--label_as_predicted")

    # The attack
    words += _option("--attack", [_text_of(AttackSpec.of(attack))])
    if seed:
        words += _option("--seed", [str(seed)])
    words += _option("--output_folder", [] if output_folder is None else [output_folder])
    return shlex.join(words)


def _option(flag: str, values: Sequence[str]) -> list[str]:
    """A flag and its values, each joined to the flag where one would be read as another flag."""
    if any(value.startswith("-") for value in values):
        return [f"{flag}={value}" for value in values]
    return [flag, *values] if values else []


def _text_of(spec: AttackSpec) -> str:
    """The shortest text that is read as this attack."""
    options = spec.to_dict()
    short = {key: value for key, value in options.items() if key != "step_size"}
    for choice in (short, options):
        text = write_options(choice)
        if AttackSpec.parse(text) == spec:
            return text
    raise ValueError(f"You passed {spec.name}, which no text stands for. Pass options that are numbers and words.")
