"""Does robust classification carry over to pixels? Towers of the leaderboard segment scenes of emoji, under attack.

    python examples/studies/segmentation.py                     # all of it, in parts if need be
    python examples/studies/segmentation.py --parts headline --seeds 0
    python examples/studies/segmentation.py --table             # from what is there

Each method at the configuration that the leaderboard chose, with each seed, read out in two ways, on the scenes of the
unseen drawing style: mean IoU clean, under PGD on plain cross-entropy and under SEA at the radius of training; under
SEA at half and at twice the radius on 50 of them; and, to see whether the order holds, under SEA of twice the steps
with two restarts, on 50 of them.

Trained towers are kept in --output_dir, which the leaderboard shares. What was measured goes to
results/segmentation_runs.json as it comes, and is not measured again; table and figures go to
results/segmentation.json, the picture to results/segmentation.png.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import leaderboard as board
from tqdm.auto import tqdm

RESULTS = Path(__file__).parent / "results"
RUNS = RESULTS / "segmentation_runs.json"
NONE = "none"
METHODS = ["tecoa", "pmg_aft", "fare"]
READOUTS = ["clearclip", "sclip"]  # those that see the scenes best without an attack
HALF, TWICE = "2/255", "8/255"
PGD, SEA = "pgd,num_steps=100,loss=ce", "sea,num_steps=100"
# Flags of `pmgaft evaluate` by what is measured.
PARTS = {
    "headline": ["--attacks", PGD, SEA, "--eps", board.EPS, "--max_samples", "200"],
    "radii": ["--attacks", SEA, "--eps", HALF, TWICE, "--max_samples", "50"],
    "stronger": ["--attacks", SEA, "sea,num_steps=200,restarts=2", "--eps", board.EPS, "--max_samples", "50"],
}
_keeping = Lock()


class Run(NamedTuple):
    """One measurement of one tower."""

    method: str
    seed: int
    readout: str
    part: str

    @property
    def key(self) -> str:
        """Its name in the file of runs."""
        return "/".join(map(str, self))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    chosen = [name for name in board.METHODS if name in board.read(board.SEARCH)]
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=chosen, help="Towers beside the original.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of training.")
    parser.add_argument("--readouts", nargs="+", default=READOUTS, help="How pixels are compared with names.")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="What is measured.")
    parser.add_argument("--jobs", type=int, default=2, help="Runs at once, each with one thread.")
    parser.add_argument("--output_dir", default="outputs/leaderboard", help="Where runs and their reports go.")
    parser.add_argument("--table", action="store_true", help="Measure nothing.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Trains and measures what is missing, prints the table, and writes figures and picture."""
    args = parse(argv)
    if not args.table:
        missing = [run for run in wanted(args) if run.key not in read_runs()]
        board.start(args, towers(missing), "training")
        measure(args, missing)

    lines = table(read_runs(), [NONE, *args.methods], args.readouts)
    print("\n".join(lines))
    board.write(RESULTS / "segmentation.json", {"table": lines, "figures": summarized(read_runs())})
    draw(read_runs(), [NONE, *args.methods], args.readouts, RESULTS / "segmentation.png")


# ---- Measuring ----


def wanted(args: argparse.Namespace) -> list[Run]:
    """All measurements, one of each method before further seeds. The original has one seed."""
    runs = []
    for part, seed, readout in itertools.product(args.parts, args.seeds, args.readouts):
        methods = args.methods if seed != args.seeds[0] else [NONE, *args.methods]
        runs += [Run(method, seed, readout, part) for method in methods]
    return runs


def towers(runs: Iterable[Run]) -> list[tuple[str, int, int]]:
    """What has to be trained for some measurements: method, configuration and seed."""
    tuned = dict.fromkeys((run.method, run.seed) for run in runs if run.method != NONE)
    return [(method, board.chosen(method), seed) for method, seed in tuned]


def measure(args: argparse.Namespace, runs: list[Run]) -> None:
    """Measures towers, several at once, and keeps the figures of each as it comes."""

    def one(run: Run) -> str | None:
        folder = Path(args.output_dir) / NONE
        model = str(board.EMOJI / "model")
        if run.method != NONE:
            folder = board.folder_of(args, run.method, board.chosen(run.method), run.seed)
            model = str(folder)
        file = folder / f"segmentation-{run.part}-{run.readout}.json"
        folder.mkdir(parents=True, exist_ok=True)

        flags = ["--model", model, "--readout", run.readout, *PARTS[run.part]]
        sets = ["--eval_sets", "scenes"]
        files = ["--output_file", str(file), "--verdict_file", str(file.with_suffix(".jsonl"))]
        command = [sys.executable, "-m", "hf_pmgaft.cli", "evaluate", *flags, *sets, *files]
        start = time.monotonic()
        with file.with_suffix(".log").open("w") as log:
            environment = {**os.environ, **board.ONE_THREAD}
            done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            return f"{file} ended with code {done.returncode}: see its log"
        keep(run, board.load_report(file), time.monotonic() - start)
        return None

    with ThreadPoolExecutor(args.jobs) as pool:
        failed = [text for text in tqdm(pool.map(one, runs), total=len(runs), disable=not runs) if text]
    if failed:
        sys.exit("error: " + "\n".join(failed))


def keep(run: Run, report: Any, seconds: float) -> None:
    """Writes the figures of one measurement beside those of the others."""
    figures = {}
    for result in report.sets:
        keys = ["clean", *result.attacks]
        values = {key: result.clean_accuracy if key == "clean" else result.attacks[key] for key in keys}
        low, high = result.robust_interval
        figures[result.figure.title] = {
            **{key: round(100 * value, 2) for key, value in values.items()},
            "robust_interval_95": [round(100 * low, 2), round(100 * high, 2)],
            "clean_interval_95": [round(100 * end, 2) for end in result.interval("clean")],
        }
    entry = {"figures": figures, "scenes": report.sets[0].num_samples, "minutes": round(seconds / 60, 1)}
    entry["protocol"] = report.protocol_hash
    with _keeping:
        board.write(RUNS, {**read_runs(), run.key: entry})


def read_runs() -> dict[str, Any]:
    """What was measured so far."""
    return board.read(RUNS)


# ---- What is shown ----


def columns_of(runs: Mapping[str, Any], figure: str) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """By readout, part and condition, by method: a figure in % of each seed."""
    columns: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for key, entry in runs.items():
        method, _, readout, part = key.split("/")
        for condition, value in entry["figures"][figure].items():
            if not condition.endswith("_95"):
                by_method = columns.setdefault((readout, part, condition), {})
                by_method.setdefault(method, []).append(value)
    return columns


def summarized(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every figure."""
    summary: dict[str, Any] = {}
    for figure in ("mIoU", "pixel accuracy"):
        for (readout, part, condition), by_method in columns_of(runs, figure).items():
            place = summary.setdefault(figure, {}).setdefault(readout, {}).setdefault(part, {})
            place[condition] = {
                method: {"mean": round(statistics.mean(values), 2), "std": spread(values), "by_seed": values}
                for method, values in by_method.items()
            }
    return summary


def spread(values: list[float]) -> float:
    """The standard deviation over seeds; 0 of one."""
    return round(statistics.stdev(values), 2) if len(values) > 1 else 0.0


def table(runs: Mapping[str, Any], methods: list[str], readouts: list[str]) -> list[str]:
    """Mean IoU in %, a line per readout and condition, a column per method."""
    titles = [NONE if method == NONE else board.METHODS[method]["title"] for method in methods]
    lines = ["| readout | mean IoU | " + " | ".join(titles) + " |", "|" + "---|" * (2 + len(methods))]
    for (readout, _, condition), by_method in columns_of(runs, "mIoU").items():
        if readout in readouts:
            cells = [
                f"{statistics.mean(by_method[method]):.1f} ± {spread(by_method[method]):.1f}"
                if method in by_method
                else ""
                for method in methods
            ]
            lines.append(f"| {readout} | {condition} | {' | '.join(cells)} |")
    return lines


def draw(runs: Mapping[str, Any], methods: list[str], readouts: list[str], picture: Path) -> None:
    """A panel per readout, in it the mean IoU of each method, clean and at the radius of training."""
    from study_plots import bars_with_spread

    panels: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for (readout, part, condition), by_method in columns_of(runs, "mIoU").items():
        if readout in readouts and part == "headline" and all(method in by_method for method in methods):
            panel = panels.setdefault(f"mean IoU, read out by {readout}", {})
            panel[condition] = {
                NONE if method == NONE else board.METHODS[method]["title"]: (
                    statistics.mean(by_method[method]),
                    spread(by_method[method]),
                )
                for method in methods
            }
    if panels:
        bars_with_spread(panels, picture)


if __name__ == "__main__":
    main()
