"""What `pmgaft attack-vlm` is passed, checked before a model is loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..attacks import parse_radius
from ..attacks.pgd import check_momentum
from ..short_names import check_different
from .attack_vlm_protocol import DEFAULTS, PROTOCOLS, ROBUST_CLIP, TARGETS
from .card_options import check_push

OWN = "own tower"
EMOJI_TARGETS = ("warning", "money bag")


def json_object(text: str) -> dict[str, Any]:
    """Reads options that are written as JSON.

    Example:
        >>> json_object('{"crop_to_patches": false}')
        {'crop_to_patches': False}
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON ({error})") from error
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object. Write it as {{"name": value}}')
    return options


def check_numbers(args: argparse.Namespace) -> None:
    """Raises `ValueError` for a number that leaves nothing to do, and a radius that is none."""
    counts = ["num_images", "num_steps", "target_steps", "restarts", "batch_size"]
    counts += [name for name in ("target_images", "max_new_tokens") if getattr(args, name) is not None]
    for name in counts:
        if getattr(args, name) < 1:
            raise ValueError(f"You passed {name}={getattr(args, name)}, which leaves nothing to do. Pass 1 or more.")
    check_momentum(args.momentum)
    for eps in args.eps:
        parse_radius(eps)
    check_different("radius", args.eps)
    if not 0 <= args.cider_threshold < 1000:
        raise ValueError(
            f"You passed cider_threshold={args.cider_threshold}, but CIDEr-D x 100 is from 0 to 1000. Pass 10, as "
            "for COCO, or 0 to attack until nothing is left."
        )


def check_idle(args: argparse.Namespace) -> None:
    """Raises `ValueError` for options that would be ignored."""
    by_task = {
        ("targeted",): ("targets", "target_images"),
        ("caption",): ("caption_column",),
        ("vqa", "pope", "scienceqa"): ("question_column", "answer_column"),
        ("scienceqa",): ("choice_column",),
        ("pope",): ("category_column", "object_column"),
    }
    for tasks, names in by_task.items():
        idle = _passed(args, names)
        if idle and not set(tasks) & set(args.tasks):
            raise ValueError(
                f"You passed {', '.join(idle)} without the task {' or '.join(tasks)}, where it has no effect. Leave "
                f"it out, or add {tasks[0]} to --tasks."
            )

    columns = [name for names in by_task.values() for name in names if name.endswith("_column")]
    idle = _passed(args, columns)
    if idle and args.eval_set is None:
        raise ValueError(
            f"You passed {', '.join(idle)} without --eval_set, where it has no effect: the emoji have questions of "
            "their own. Pass --eval_set too, or leave it out."
        )
    if "scienceqa" in args.tasks and args.eval_set is None:
        raise ValueError(
            "You passed the task scienceqa without --eval_set, but the emoji have no such questions. Pass a set that "
            "has, or other --tasks."
        )
    _check_attack(args)


def _check_attack(args: argparse.Namespace) -> None:
    """Raises `ValueError` for options of the other attack, and of a score that is not computed."""
    if args.attack == "encoder" and "targeted" in args.tasks:
        raise ValueError(
            "You passed --attack encoder with the task targeted, but it looks at the vision tower alone and never at "
            "a text. Leave targeted out, or take another attack."
        )
    if args.attack == "ensemble":
        idle = [name for name, default in (("restarts", 1), ("momentum", 0.0)) if getattr(args, name) != default]
        reason = "The ensemble runs without random starts, by the momentum of APGD"
    else:
        idle = [] if args.target_steps == DEFAULTS["target_steps"] else ["target_steps"]
        reason = "PGD takes --num_steps towards targets too"
    if idle:
        flags = ", ".join(f"--{name}" for name in idle)
        raise ValueError(f"You passed {flags} with --attack {args.attack}. {reason}. Leave {flags} out.")
    if args.cider_threshold and args.caption_score != "cider":
        raise ValueError(
            "You passed --cider_threshold without --caption_score cider, where it has no effect. Pass both, or leave "
            "it out."
        )


def _passed(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    of_protocol = PROTOCOLS.get(args.protocol, {})
    return [f"--{name}" for name in names if getattr(args, name) is not None and name not in of_protocol]


def check_card(args: argparse.Namespace) -> None:
    """Raises `ValueError` for a card that is of no tower, and one that cannot be changed."""
    if args.update_card is None:
        if args.push:
            raise ValueError("You passed --push without --update_card, where it has no effect. Pass both.")
        return
    if args.update_card not in args.towers:
        raise ValueError(
            f"You passed --update_card {args.update_card}, which is none of --towers, so that no figure is of it. "
            "Pass one of them, as it is written there."
        )
    check_push(args, otherwise="attack without --update_card")


def tower_names(towers: Sequence[str]) -> list[str]:
    """What the towers are called: the last parts of their paths, if these tell them apart."""
    check_different("tower", towers)
    short = [Path(tower).name for tower in towers]
    return short if len({*short, OWN}) == len(short) + 1 else list(towers)


def read_targets(args: argparse.Namespace) -> list[str]:
    """The strings to be written; none if no task has any."""
    if "targeted" not in args.tasks:
        return []
    if args.targets is None and args.eval_set is None:
        return list(EMOJI_TARGETS)
    if args.targets is None and args.protocol == ROBUST_CLIP:
        return list(TARGETS.values())
    if args.targets is None:
        raise ValueError("You passed no targets for the targeted attack. Pass --targets, or other --tasks.")

    targets = args.targets
    if len(targets) == 1 and targets[0].endswith(".json"):
        try:
            targets = json.loads(Path(args.targets[0]).read_text(encoding="utf-8-sig"))
        except ValueError as error:  # of JSON or of UTF-8
            raise ValueError(
                f'{args.targets[0]} is no JSON ({error}). Write it as ["one text", "another"].'
            ) from error
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets) or not targets:
            raise ValueError(f'{args.targets[0]} holds no list of targets. Write it as ["one text", "another"].')
    if not all(target.strip() for target in targets):
        raise ValueError("You passed an empty target, which every text contains. Pass a text to be written.")
    return list(dict.fromkeys(targets))
