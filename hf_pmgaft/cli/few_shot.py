"""Trains methods on few shots of each class, and says how accurate and robust they become.

    pmgaft few-shot
    pmgaft few-shot --methods tecoa pmg_aft capt --shots 1 4 16 all --seeds 0 1 2 --num_processes 2
    pmgaft few-shot --protocol base_to_new --shots all
    pmgaft few-shot --model openai/clip-vit-base-patch32 --sets oxford_pets dtd --output_dir outputs/shots
    pmgaft few-shot --show_grid > mine.yaml
    pmgaft few-shot --grid mine.yaml

A grid is methods x shots x seeds x sets. Each of its rows trains one configuration by a recipe of `pmgaft train` and
measures it, clean and attacked, on images that no row trains on. Without --grid, or --sets of your own, it is that of
the embedded default. What is done is not done again: a grid that was stopped, killed or enlarged goes on with the rows
that are left. A row that fails costs no other; at the end it is told why.

Protocols: plain tests on the set that shots are from; base_to_new trains on the first half of its classes and tests
each half among its own, with their harmonic mean H; cross tests on other sets; shift tests on the same classes in
other styles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from ..evaluation.tables import FORMATS, render
from ..few_shots.grid import PROTOCOLS, Grid
from ..files import check_output_file, check_output_folder, write_whole
from ..registry import check_count
from .errors import FAILURES, one_line_errors, one_line_stops
from .parser import make_parser

EMBEDDED = Path(__file__).parents[1] / "few_shots" / "emoji.yaml"
# The authors' recipes for few shots, and what they are to be compared with.
METHODS = ("tecoa", "pmg_aft", "apt", "fap", "capt", "adv_clip_lora", "r_adapter")
PRELOADED = ("hf_pmgaft.training.trainer", "hf_pmgaft.evaluation.evaluate", "hf_pmgaft.cli.few_shot_row")


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("few-shot", __doc__, script)
    parser.add_argument("--grid", help="YAML file of a grid, of which the flags below override entries.")
    parser.add_argument("--show_grid", action="store_true", help="Print the embedded grid, for one of your own.")

    grid = parser.add_argument_group("grid")
    grid.add_argument("--model", help="Hub id or folder of the CLIP that is tuned, if not that of the recipes.")
    grid.add_argument("--methods", nargs="+", help="Methods of the grid, recipes of the package, or none (untrained).")
    grid.add_argument("--sets", nargs="+", help="Sets of the grid, known sets (dtd, ...) or NAME[:config].")
    grid.add_argument("--tests", nargs="+", help="What the protocols cross and shift test on, named as sets.")
    grid.add_argument("--shots", nargs="+", help="Images of each class to train on: numbers, or all.")
    grid.add_argument("--seeds", nargs="+", type=int, help="Seeds of the draw of images and of training.")
    grid.add_argument("--protocol", choices=PROTOCOLS, help="What is trained on and tested on, see above.")
    grid.add_argument("--baseline", help="The method that others are compared with, image by image; else the first.")

    threat = parser.add_argument_group("threat")
    threat.add_argument("--attacks", nargs="+", help="As in `pmgaft evaluate`; PGD-20 with the margin loss if absent.")
    threat.add_argument("--eps", nargs="+", help="Radii in the scale of images in [0,1].")
    threat.add_argument("--norm", choices=["linf", "l2", "l1"], help="Norm of the ball.")
    threat.add_argument("--max_samples", type=int, help="Test images per set, the same for all rows; all if absent.")

    out = parser.add_argument_group("running and output")
    out.add_argument("--output_dir", help="Where rows, tables and pictures go.")
    out.add_argument("--num_processes", type=int, default=1, help="Rows at once, each with its share of the machine.")
    out.add_argument("--table_only", action="store_true", help="Compute nothing; show what is done.")
    out.add_argument("--format", default="text", choices=FORMATS, help="How the table is printed.")
    out.add_argument(
        "--output_file", help="JSON file for everything; few_shots_PROTOCOL.json in the folder if absent."
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Computes the rows of a grid that are left, and shows what all of it came to."""
    with one_line_errors():
        args = parse(argv, script)
        if args.show_grid:
            print(EMBEDDED.read_text(encoding="utf-8"), end="")
            return
        grid, rows = prepare(args)
    with one_line_errors(FAILURES):
        failed = {} if args.table_only else compute(args, grid, rows)
        show(args, grid, rows, failed)
    if failed:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        sys.exit(f"error: {len(failed)} of {len(rows)} rows failed. The same command tries them again.\n{listed}")


def prepare(args: argparse.Namespace) -> tuple[Grid, list]:
    """The grid and its rows, with everything checked that can fail because of what was passed."""
    check_count("--num_processes", args.num_processes)
    check_output_file("--output_file", args.output_file)
    grid = read_grid(args)
    check_output_folder("--output_dir", grid.output_dir)

    from ..few_shots.row import rows_of  # brings in the objectives
    from .few_shot_checks import check_rows, option_names

    rows = rows_of(grid, option_names())
    for row in rows:
        row.check()
    if not args.table_only:
        check_rows(grid, rows)
    return grid, rows


def read_grid(args: argparse.Namespace) -> Grid:
    """The grid that a command line names: a file's, or without one the embedded one or one of sets of its own."""
    keys = ("methods", "sets", "tests", "shots", "seeds", "protocol", "baseline", "attacks", "eps", "norm")
    overrides = {key: getattr(args, key) for key in (*keys, "model", "max_samples", "output_dir")}
    if args.grid is None and (args.model or args.sets):
        overrides["methods"] = args.methods or METHODS
        if args.eps:  # recipes have different ones, and are to be compared at one
            overrides["settings"] = {"eps": args.eps[0]}
        return Grid.read(None, overrides)
    return Grid.read(args.grid or EMBEDDED, overrides)


def compute(args: argparse.Namespace, grid: Grid, rows: list) -> dict[str, str]:
    """Computes what is left, and returns by row why others failed."""
    from ..few_shots.runs import run_rows
    from ..training.run_folder import RunFolder
    from .few_shot_row import run_row

    left = [row for row in rows if not row.is_done()]
    print(f"{len(rows)} rows, of which {len(rows) - len(left)} are done. They go to {grid.output_dir}.", flush=True)
    progress = _Progress(len(rows), len(rows) - len(left))
    how = f"What is done is in {grid.output_dir}: the same command goes on with the rows that are left."
    with one_line_stops(lambda: how), RunFolder(grid.output_dir, {}).locked():
        return run_rows(left, run_row, args.num_processes, progress, PRELOADED).failed


class _Progress:
    """Tells each row as it ends, and how long the rest will take."""

    def __init__(self, total: int, done: int):
        self.total = total
        self.done = done

    def __call__(self, row, seconds: float | None, left: float) -> None:
        self.done += 1
        what = "failed"
        if seconds is not None:
            figures = [
                f"{result.name} {100 * result.clean_accuracy:.1f} clean, {100 * result.robust_accuracy:.1f} robust"
                for result in (row.report().sets if row.tests else ())
            ]
            what = f"{'; '.join(figures) or 'trained'} ({seconds:.0f} s)"
        rest = self.total - self.done
        more = f"; {rest} left, about {timedelta(seconds=round(left))}" if rest and left else ""
        print(f"[{self.done}/{self.total}] {row.name}: {what}{more}", flush=True)


def show(args: argparse.Namespace, grid: Grid, rows: list, failed: dict[str, str]) -> None:
    """Prints the table, and writes the JSON of everything and the curves over shots."""
    from ..few_shots.results import FIGURES, cells_of, curves, record, table
    from ..few_shots.row import file_name
    from ..plots.shots import shots_curves

    cells = cells_of(grid, rows)
    folder = Path(grid.output_dir)
    file = Path(args.output_file or folder / f"few_shots_{grid.protocol}.json")
    write_whole(file, json.dumps(record(grid, rows, cells, failed), indent=1) + "\n")
    if not cells:
        print("No row is done yet, so there is nothing to show.")
        return

    print(render(table(cells), args.format))
    print(f"\nProtocol {grid.protocol}; seeds {', '.join(map(str, grid.seeds))}; baseline {grid.baseline}.")
    print("Means in %, ± their standard deviation over seeds; differences in points with 95 % intervals, by image.")
    pictures = []
    for name, test in dict.fromkeys((cell.set, cell.test) for cell in cells):
        panels = {figure: curves(cells, name, test, figure) for figure in FIGURES}
        if any(len(points) > 1 for points in panels["clean"].values()):
            pictures.append(folder / file_name(f"shots_{grid.protocol}_{name}_{test}.png"))
            shots_curves(panels, pictures[-1])
    print(f"All of it is in {', '.join(map(str, [file, *pictures]))}.")


if __name__ == "__main__":
    main()
