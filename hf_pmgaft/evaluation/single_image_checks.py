"""What can be asked about one picture: the attack, the class names, the pixels."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..attacks.dense_checks import check_whole
from ..attacks.inputs import check_images
from ..attacks.spec import AttackSpec

TARGETED = ("fgsm", "pgd")  # attacks that go towards a class
Attack = AttackSpec | Mapping[str, Any] | str


def check_attack(attack: Attack, target: str | None, num_classes: int) -> tuple[AttackSpec, list[AttackSpec]]:
    """Returns a checked attack, and the single ones that it stands for.

    Raises:
        ValueError: for one on segmentation, on a defended model or with a source, and for one that knows no target.

    Example:
        >>> spec, parts = check_attack("autoattack,eps=4/255,version=fast", None, num_classes=10)
        >>> spec.name, len(parts)
        ('AutoAttack fast linf 4/255', 2)
    """
    spec = AttackSpec.of(attack)
    check_whole(spec)
    if {"source", "attacker", "eot"} & set(spec.options):
        raise ValueError(
            f"You passed {spec.name}. Here a model is attacked as it is, by its own gradients. Leave source, attacker "
            "and eot out."
        )
    if target is not None and (spec.attack not in TARGETED or spec.options.get("tau") is not None):
        raise ValueError(
            f"You passed the target {target!r:.80} with {spec.name}, which goes away from the label alone. Pass "
            f"{' or '.join(TARGETED)} without tau, or no target."
        )
    return spec, spec.expand(num_classes)


def check_target(target: str | None, label: str | None) -> None:
    """Raises `ValueError` for a target that is the class of the picture.

    Example:
        >>> check_target("dog", "cat")
    """
    if target is not None and target == label:
        raise ValueError(
            f"You passed the target {target!r:.80}, which is the class of the picture already. Pass another one."
        )


def check_name(what: str, name: str | None, class_names: Sequence[str]) -> None:
    """Raises `ValueError` for a label or target that is none of the class names; `None` passes.

    Example:
        >>> check_name("label", "cat", ["cat", "dog"])
        >>> check_name("label", "dgo", ["cat", "dog"])
        Traceback (most recent call last):
        ValueError: You passed the label 'dgo', which is none of the 2 class names. Pass one of them, such as 'dog'.
    """
    if name is None or name in class_names:
        return
    near = difflib.get_close_matches(str(name), class_names, 1)
    hint = f", such as {near[0]!r}" if near else ""
    raise ValueError(
        f"You passed the {what} {name!r:.80}, which is none of the {len(class_names)} class names. Pass one of "
        f"them{hint}."
    )


def check_image_of_set(image: torch.Tensor) -> torch.Tensor:
    """Returns an image `[3,H,W]` in [0,1] as a set gives it, in float32.

    Raises:
        ValueError: for another shape or type, and values outside [0,1].

    Example:
        >>> check_image_of_set(torch.zeros(3, 8, 8)).shape
        torch.Size([3, 8, 8])
    """
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
        raise ValueError(
            f"You passed a tensor of shape {tuple(image.shape)} and {image.dtype} as a picture. Pass one image "
            "[3,H,W] of floating point numbers in [0,1], or a PIL image."
        )
    return check_images(image.detach().float()[None])[0]
