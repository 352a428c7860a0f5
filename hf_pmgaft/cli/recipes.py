"""Lists the recipes that `pmgaft train --recipe NAME` takes, or prints one.

    pmgaft recipes
    pmgaft recipes show tecoa > mine.yaml
    pmgaft train --config mine.yaml

A recipe is a YAML file of options of `pmgaft train`, with the authors' settings and where they come from.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .errors import one_line_errors
from .parser import make_parser

FOLDER = Path(__file__).parents[1] / "recipes"


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    names = [file.stem for file in recipe_files()]
    parser = make_parser("recipes", __doc__, script)
    actions = parser.add_subparsers(dest="action", metavar="{show NAME}")
    show = actions.add_parser("show", allow_abbrev=False, help="Print a recipe.")
    show.add_argument("name", choices=names, metavar="NAME", help=f"One of {', '.join(names)}.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Prints what a command line asks for."""
    args = parse(argv, script)
    if args.action == "show":
        print((FOLDER / f"{args.name}.yaml").read_text(encoding="utf-8"), end="")
        return

    files = recipe_files()
    width = max(len(file.stem) for file in files)
    for file in files:
        print(f"{file.stem:<{width}}  {first_line(file)}")


def recipe_files() -> list[Path]:
    """The YAML files of the recipes, by name."""
    return sorted(FOLDER.glob("*.yaml"))


def first_line(file: Path) -> str:
    """What the first line of a recipe says: the method and what it does."""
    return file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
