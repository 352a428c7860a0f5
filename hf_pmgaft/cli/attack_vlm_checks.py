"""What `pmgaft attack-vlm` is passed, checked before a model is loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from ..attacks import parse_radius
from ..attacks.pgd import check_momentum
from .parser import check_different

OWN = "own tower"
EMOJI_TARGETS = ("warning", "money bag")


def check_numbers(args: argparse.Namespace) -> None:
    """Raises `ValueError` for a number that leaves nothing to do, and a radius that is none."""
    for name in ("num_images", "num_steps", "restarts", "max_new_tokens", "batch_size"):
        if getattr(args, name) < 1:
            raise ValueError(f"You passed {name}={getattr(args, name)}, which leaves nothing to do. Pass 1 or more.")
    check_momentum(args.momentum)
    for eps in args.eps:
        parse_radius(eps)
    if PartialState().num_processes > 1:
        raise ValueError("You launched several processes, which would all do the same. Launch one.")


def check_idle(args: argparse.Namespace) -> None:
    """Raises `ValueError` for options that would be ignored."""
    of_tasks = {
        "targeted": {"--targets": args.targets},
        "caption": {"--caption_column": args.caption_column},
        "vqa": {"--question_column": args.question_column, "--answer_column": args.answer_column},
    }
    for task, flags in of_tasks.items():
        idle = [flag for flag, value in flags.items() if value is not None]
        if idle and task not in args.tasks:
            raise ValueError(
                f"You passed {', '.join(idle)} without the task {task}, where it has no effect. Leave it out, or add "
                f"{task} to --tasks."
            )

    of_sets = [*of_tasks["caption"].items(), *of_tasks["vqa"].items()]
    idle = [flag for flag, value in of_sets if value is not None]
    if idle and args.eval_set is None:
        raise ValueError(
            f"You passed {', '.join(idle)} without --eval_set, where it has no effect: the emoji have questions of "
            "their own. Pass --eval_set too, or leave it out."
        )


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
