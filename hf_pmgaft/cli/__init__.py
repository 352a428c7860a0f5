"""The command `pmgaft`. Each subcommand is a file of this folder, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

# The file of each subcommand, and what it does. A file has `parse(argv)` and `main(argv)`.
COMMANDS = {
    "train": ("train", "make a CLIP robust, and say what was gained and lost"),
    "evaluate": ("evaluate", "measure clean and robust accuracy, or recall"),
    "attack": ("attack", "attack one picture, and write what fools a model"),
    "few-shot": ("few_shot", "train methods on few shots of each class, and compare them"),
    "certify": ("certify", "certify how far a smoothed model keeps its answers"),
    "compare": ("compare", "compare two reports image by image"),
    "transfer": ("transfer", "make images on each of several models, and judge them by all"),
    "universal": ("universal", "make one perturbation for all images"),
    "demo": ("demo", "open a page on which one attacks images and looks at reports"),
    "gallery": ("gallery", "draw where models look, clean and attacked"),
    "attack-vlm": ("attack_vlm", "attack what a vision-language model writes"),
    "convert": ("convert", "take checkpoints from open_clip, and to it"),
    "recipes": ("recipes", "list the recipes, or print one"),
    "reproduce": ("reproduce", "say what a recipe runs, costs and should give, and do it"),
    "env": ("environment", "print what a bug report needs"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command line of `pmgaft`, by default that of the process."""
    command, rest = _split(sys.argv[1:] if argv is None else argv)
    _module(command).main(rest)


def parse(argv: Sequence[str]) -> Any:
    """Parses a command line of `pmgaft` without running it.

    Returns:
        What the subcommand's own `parse` gives: an `argparse.Namespace`, or the dataclasses of `train`.

    Raises:
        SystemExit: if it is wrong, or asks for help.
        ValueError: if a value of `train` is wrong.

    Example:
        >>> from hf_pmgaft.cli import parse
        >>> parse(["evaluate", "--eps", "4/255", "8/255"]).eps
        ['4/255', '8/255']
    """
    command, rest = _split(argv)
    return _module(command).parse(rest)


def _split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The subcommand and what follows it. Without one, help or the version is printed."""
    command, *rest = argv or ["--help"]
    if command in ("-h", "--help"):
        print(_help())
        sys.exit(0)
    if command == "--version":
        from hf_pmgaft import __version__

        print(__version__)
        sys.exit(0)
    if command not in COMMANDS:
        sys.exit(f"error: pmgaft has no command {command!r}. Choose one of {', '.join(COMMANDS)}.")
    return command, rest


def _help() -> str:
    lines = [f"  {name:<12}{meaning}" for name, (_, meaning) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pmgaft COMMAND [options]",
            "",
            "Zero-shot adversarial robustness of CLIP.",
            "",
            *lines,
            "",
            "`pmgaft COMMAND --help` lists the options of each.",
        ]
    )


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"hf_pmgaft.cli.{COMMANDS[command][0]}")
