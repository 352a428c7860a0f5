"""What it costs to be robust: towers of the leaderboard side by side, in all that people do with a CLIP.

    python examples/studies/costs.py                           # half an hour of one core, after the leaderboard
    python examples/studies/costs.py --stronger                # does a stronger attack change the order?
    python examples/studies/costs.py --texts                   # what the LLaVA writes alone
    python examples/studies/costs.py --methods tecoa pmg_aft fare qt_aft

Each method at the configuration that the leaderboard chose, with each seed, clean and attacked in L-inf at the radius
of training and at twice it: classification (the leaderboard's own figures, AutoAttack `fast`, at the first radius),
retrieval of captions and images (PGD-20 on both losses, 80 images of each of the seven groups that were not tuned on),
what the embedded LLaVA writes through the tower (attack_llava.py, PGD-50 on 50 images), and the drawing styles of
shift.yaml (PGD-20 with the margin loss, at the first radius). --stronger goes on from these attacks to 100 steps with
two restarts, on 20 images of each set (of the LLaVA to 200 steps, on the same 50 images, for two of its tasks); what a
smaller radius or a weaker attack fooled stays fooled.

Finished runs are kept in --output_dir, which the leaderboard shares, and not made again. Table and figures of each
seed go to results/costs.json, the picture to results/costs.png, a table to sort to results/costs.html; of --stronger
to costs_stronger.json, .png and .html. What --texts leaves out stays there as it was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import leaderboard as board

from hf_pmgaft.files import write_whole

RESULTS = Path(__file__).parent / "results"
NONE = "none"
TWICE = "8/255"
# Figures of a report by what had attacked so far: after which of its attacks.
STAGES = {
    "costs": {"retrieval": {board.EPS: 1, TWICE: 3}, "shift": {board.EPS: 0}},
    "stronger": {
        "retrieval": {board.EPS: 1, f"{board.EPS}, stronger": 3, TWICE: 5, f"{TWICE}, stronger": 7},
        "shift": {board.EPS: 1, f"{board.EPS}, stronger": 3},
    },
}
RECALLS = [f"{way} R@{k}" for way in ("I2T", "T2I") for k in (1, 5, 10)]
# What attack_llava.py is asked for, by the end that its radii get in the table.
TWO_TASKS = ["--eps", board.EPS, TWICE, "--tasks", "targeted", "caption", "--targets", "warning"]
LLAVA = {
    "costs": {"": ["--eps", board.EPS, TWICE]},
    "stronger": {"": TWO_TASKS, ", stronger": [*TWO_TASKS, "--num_steps", "200", "--restarts", "2"]},
}
# Panels of the picture.
PANELS = {
    "accuracy": "zero-shot accuracy\n(AutoAttack fast)",
    "I2T R@1": "retrieval, I2T R@1\n(PGD-20)",
    "caption, chrf": "LLaVA's captions, chrF++\n(PGD-50)",
    "shift": "natural shift, accuracy\n(PGD-20)",
    "target 'warning', success": "attack that makes LLaVA write “warning”:\nsuccess, the lower the better (PGD-50)",
}
# By task, radius and method: a figure in % of each seed.
Figures = dict[str, dict[str, dict[str, list[float]]]]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line, with the split of the leaderboard's own figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    chosen = [name for name in board.METHODS if name in board.read(board.SEARCH)]
    parser.add_argument("--methods", nargs="*", default=["tecoa", "pmg_aft", "fare"], choices=chosen, help="Towers.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of training.")
    parser.add_argument("--stronger", action="store_true", help="Stronger attacks, on fewer images.")
    parser.add_argument("--texts", action="store_true", help="What the LLaVA writes alone.")
    parser.add_argument("--jobs", type=int, default=2, help="Runs at once, each with one thread.")
    parser.add_argument("--output_dir", default="outputs/leaderboard", help="Where runs and their reports go.")
    parser.add_argument("--file", help="JSON, PNG and HTML of the figures, without ending; in results/ if absent.")
    args = parser.parse_args(argv)
    args.split = "test"
    return args


def main(argv: list[str] | None = None) -> None:
    """Trains and measures what is missing, prints the table, and writes figures, picture and page."""
    args = parse(argv)
    board.check_places(args)
    kind = "stronger" if args.stronger else "costs"
    runs = {name: [(name, board.chosen(name), seed) for seed in args.seeds] for name in args.methods}
    every = [run for of_method in runs.values() for run in of_method]
    file = args.file or str(RESULTS / ("costs_stronger" if args.stronger else "costs"))
    figures, of_parts = earlier(Path(f"{file}.json"), args.seeds, {NONE, *runs})
    if args.texts and not figures:
        sys.exit(
            f"error: You passed --texts, but {file}.json has no figures of these methods and seeds. Leave it out."
        )

    # Training
    board.start(args, board.backbones(every), "training")
    board.start(args, every, "training")
    if not (args.stronger or args.texts):
        board.complete(args, every)

    # Measuring
    folders = {NONE: [Path(args.output_dir) / NONE]}
    folders |= {name: [board.folder_of(args, *run) for run in of_method] for name, of_method in runs.items()}
    with ThreadPoolExecutor(1) as pool:  # the LLaVA is one process, and goes on beside the others
        written = pool.submit(write_texts, args, kind, folders)
        if not args.texts:
            board.start(args, every, kind)
            board.measure_none(args, kind)
        written.result()

    # What is shown and kept
    if not args.texts:
        figures = {} if args.stronger else classification(args, runs)
        figures |= by_reports(folders, kind)
        of_parts = protocols(args, kind, folders, every)
    figures |= by_texts(args, kind, folders)
    of_parts |= protocols_of_texts(args, kind)
    titles = {NONE: "none", **{name: board.METHODS[name]["title"] for name in args.methods}}
    lines = table(figures, titles)
    print("\n".join(lines))
    summary = {"table": lines, "seeds": args.seeds, "protocols": of_parts}
    board.write(Path(f"{file}.json"), {**summary, "figures": summarized(figures)})
    draw(figures, titles, f"{file}.png")
    write_whole(f"{file}.html", page(summarized(figures), titles))


# ---- What was measured ----


def classification(args: argparse.Namespace, runs: Mapping[str, list]) -> Figures:
    """The leaderboard's figures of these runs."""
    kept = board.read(board.RUNS["test"])
    keys = {NONE: [NONE]}
    keys |= {name: [board.key_of(*run) for run in of_method] for name, of_method in runs.items()}
    rows = {
        name: board.row_of(name, [kept[key] for key in keys_of_method], ("autoattack", "clean"))
        for name, keys_of_method in keys.items()
    }
    columns = {"clean": "clean_by_seed", board.EPS: "autoattack_by_seed"}
    return {"accuracy": {radius: {name: rows[name][key] for name in rows} for radius, key in columns.items()}}


def by_reports(folders: Mapping[str, list[Path]], kind: str) -> Figures:
    """Recalls, and accuracy under shift."""
    figures: Figures = {}
    for part, names in {"retrieval": RECALLS, "shift": ["accuracy"]}.items():
        for method, of_method in folders.items():
            reports = [board.load_report(board.report_file(folder, kind, part)) for folder in of_method]
            for name in names:
                task = figures.setdefault(name if part == "retrieval" else part, {})
                of_figure = [report.of(name) for report in reports]
                task.setdefault("clean", {})[method] = [100 * report.mean("clean_accuracy") for report in of_figure]
                for radius, place in STAGES[kind][part].items():
                    task.setdefault(radius, {})[method] = [100 * after(report, place) for report in of_figure]
    return figures


def after(report: Any, place: int) -> float:
    """The mean over sets of the accuracy that is left by a report's attacks up to the one at a place."""
    return statistics.fmean(list(result.attacks.values())[place] for result in report.sets)


def write_texts(args: argparse.Namespace, kind: str, folders: Mapping[str, list[Path]]) -> None:
    """Lets the LLaVA write through each tower. What stands in its verdict file is not written again."""
    towers = [str(folder) for name, of_method in folders.items() if name != NONE for folder in of_method]
    for end, flags in LLAVA[kind].items():
        file = text_file(args, kind, end)
        command = [sys.executable, "-m", "hf_pmgaft.cli.attack_vlm"]
        if towers:
            command += ["--towers", *towers]
        command += [*flags, "--output_file", str(file), "--verdict_file", str(file.with_suffix(".jsonl"))]
        subprocess.run(command, env={**os.environ, **board.ONE_THREAD}, check=True)


def text_file(args: argparse.Namespace, kind: str, end: str) -> Path:
    """The report on what the LLaVA writes."""
    return Path(args.output_dir) / f"{kind}-llava{'-stronger' if end else ''}.json"


def by_texts(args: argparse.Namespace, kind: str, folders: Mapping[str, list[Path]]) -> Figures:
    """Figures of what the LLaVA wrote."""
    from hf_pmgaft.cli.attack_vlm import OWN
    from hf_pmgaft.downstream.answer_evaluation import CLEAN

    figures: Figures = {}
    for end in LLAVA[kind]:
        towers = board.read(text_file(args, kind, end))["towers"]
        for task, of_radii in towers[OWN].items():
            for radius, (figure, *_) in of_radii.items():
                label = radius if radius == CLEAN else radius + end
                cells = figures.setdefault(f"{task}, {figure}", {}).setdefault(label, {})
                for name, of_method in folders.items():
                    names = [OWN] if name == NONE else [folder.name for folder in of_method]
                    cells[name] = [100 * towers[tower][task][radius][figure] for tower in names]
    return figures


def protocols(args: argparse.Namespace, kind: str, folders: Mapping[str, list[Path]], runs: list) -> dict[str, Any]:
    """The hash of each part's protocol, which must be the same of all towers."""
    of_parts: dict[str, Any] = {}
    if kind == "costs":
        of_parts["classification"] = board.common_protocol({NONE} | {board.key_of(*run) for run in runs}, "test")
    for part in board.EVALUATIONS[kind]:
        files = [board.report_file(folder, kind, part) for of_method in folders.values() for folder in of_method]
        hashes = {board.load_report(file).protocol_hash for file in files}
        if len(hashes) > 1:
            sys.exit(f"error: reports of {part} follow several protocols, which cannot be compared: {sorted(hashes)}.")
        of_parts[part] = hashes.pop()
    return of_parts


def protocols_of_texts(args: argparse.Namespace, kind: str) -> dict[str, Any]:
    """The whole protocol of what the LLaVA wrote, by what stands for it in the summary."""
    return {f"llava{end}": board.read(text_file(args, kind, end))["protocol"] for end in LLAVA[kind]}


def earlier(file: Path, seeds: Sequence[int], methods: Collection[str]) -> tuple[Figures, dict[str, Any]]:
    """Figures and protocols that a file has of former runs, none if they are of other seeds or methods."""
    stored = board.read(file)
    figures = {
        task: {
            radius: {name: cell["by_seed"] for name, cell in of_methods.items()}
            for radius, of_methods in of_radii.items()
        }
        for task, of_radii in stored.get("figures", {}).items()
    }
    there = {name for _, _, of_methods in rows_of(figures) for name in of_methods}
    if stored.get("seeds") != list(seeds) or there != set(methods):
        return {}, {}
    return figures, stored["protocols"]


# ---- What is shown ----


def rows_of(figures: Figures) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    """Each task and radius, with the figures of the methods."""
    for task, of_radii in figures.items():
        for radius, of_methods in of_radii.items():
            yield task, radius, of_methods


def spread(values: list[float]) -> float:
    """The standard deviation over seeds, 0 for one seed."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def summarized(figures: Figures) -> dict[str, Any]:
    """The figures with their means and standard deviations over seeds."""
    summary: dict[str, Any] = {}
    for task, radius, of_methods in rows_of(figures):
        summary.setdefault(task, {})[radius] = {
            name: {
                "mean": round(statistics.fmean(values), 6),
                "std": round(spread(values), 6),
                "by_seed": [round(value, 6) for value in values],
            }
            for name, values in of_methods.items()
        }
    return summary


def table(figures: Figures, titles: Mapping[str, str]) -> list[str]:
    """A row for each task and radius, a column for each method, in Markdown."""
    lines = [["figure in %", "radius", *titles.values()]]
    lines.append(["---"] * len(lines[0]))
    for task, radius, of_methods in rows_of(figures):
        shown = []
        for name in titles:
            values = of_methods[name]
            tail = f" ± {spread(values):.1f}" if len(values) > 1 else ""
            shown.append(f"{statistics.fmean(values):.1f}{tail}")
        lines.append([task, radius, *shown])
    return [f"| {' | '.join(line)} |" for line in lines]


def page(figures: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The figures as a part of a page, from what the JSON has of them.

    There is a point for each method and task, but those whose figure is the attack's success.
    """
    from study_pages import Point, number, study_part

    rows, points = [["figure in %", "radius", *titles.values()]], {}
    for task, of_radii in figures.items():
        for radius, of_methods in of_radii.items():
            cells = [of_methods[name] for name in titles]
            spreads = [each["std"] if len(each["by_seed"]) > 1 else None for each in cells]
            shown = [number(each["mean"], spread) for each, spread in zip(cells, spreads, strict=True)]
            rows.append([task, radius, *shown])
        if task.endswith("success"):
            continue
        for place, (name, title) in enumerate(titles.items()):
            clean, robust = of_radii["clean"][name], of_radii[board.EPS][name]
            spreads = (clean["std"], robust["std"])
            points[f"{title}, {task}"] = Point(clean["mean"], robust["mean"], *spreads, group=place)
    return study_part(rows, points, "clean in %", f"at {board.EPS} in %")


def draw(figures: Figures, titles: Mapping[str, str], file: str) -> None:
    """A panel for each kind of use, a group of bars for each method."""
    from study_plots import bars_with_spread

    panels = {}
    for task, title in PANELS.items():
        if task in figures:
            panels[title] = {
                radius: {titles[name]: (statistics.fmean(v), spread(v)) for name, v in of_methods.items()}
                for radius, of_methods in figures[task].items()
            }
    bars_with_spread(panels, file)


if __name__ == "__main__":
    main()
