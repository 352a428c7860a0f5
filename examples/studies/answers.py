"""Is the Robust CLIP paper's ensemble stronger than plain PGD, on what the embedded LLaVA writes through its towers?

    python examples/studies/answers.py                    # all of it, which trains missing towers
    python examples/studies/answers.py --seeds 0
    python examples/studies/answers.py --runs pope        # yes and no alone
    python examples/studies/answers.py --table            # from what is there

The original tower, and TeCoA, PMG-AFT and FARE as the leaderboard chose them, three seeds of each. Captions by
CIDEr-D, and the answers to two questions by VQA accuracy, of 50 emoji in the unseen drawing style, at 2/255 and
4/255. The ensemble has APGD-100, here twice for a caption and four times for an answer: from the clean image, then
from the worst so far, of answers also towards two words. PGD takes as many passes: 202 steps for a caption, 404 for an
answer. Everything else is the same, and an image leaves either at the same score.

Beside it POPE's questions, whether something is in the image, by the F1 of yes: up to three objects that are there and
as many that are not, by each of its three samplings, about 20 emoji, clean and under PGD-100.

Texts are kept in --output_dir, which the leaderboard shares, and not written again. Figures, and by how much PGD
leaves more than the ensemble on the same images, go to results/answers.json, the picture to results/answers.png. What
other runs came to stays there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import costs
import leaderboard as board

RESULTS = Path(__file__).parent / "results"
NONE = costs.NONE
METHODS = ["tecoa", "pmg_aft", "fare"]
ENSEMBLE, PGD = "ensemble", "PGD"
DIFFERENCE = "PGD minus ensemble"
# Flags of `pmgaft attack-vlm`: those of each run, by the attack that its figures stand under, and those of all.
SAME = ["--eps", "2/255", "4/255"]
COMPARED = ["--caption_score", "cider", "--cider_threshold", "10", "--num_images", "50"]
RUNS = {
    "ensemble": (ENSEMBLE, [*COMPARED, "--tasks", "caption", "vqa", "--attack", "ensemble", "--num_steps", "100"]),
    "pgd-caption": (PGD, [*COMPARED, "--tasks", "caption", "--num_steps", "202"]),
    "pgd-vqa": (PGD, [*COMPARED, "--tasks", "vqa", "--num_steps", "404"]),
    "pope": (PGD, ["--tasks", "pope", "--num_steps", "100", "--num_images", "20"]),
}
# By task, then by clean or attack and radius, then by method: what a report has of each seed's tower.
Cells = dict[str, dict[str, dict[str, list[dict[str, Any]]]]]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    chosen = [name for name in board.METHODS if name in board.read(board.SEARCH)]
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=chosen, help="Towers beside the original.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of training.")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS, help="What is attacked, and how.")
    parser.add_argument("--jobs", type=int, default=2, help="Runs at once, each with one thread.")
    parser.add_argument("--output_dir", default="outputs/leaderboard", help="Where runs and their reports go.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Where figures and the picture go.")
    parser.add_argument("--table", action="store_true", help="Write nothing through towers.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Trains towers and writes texts that are missing, prints the tables, and writes figures and picture."""
    args = parse(argv)
    towers = {name: [(name, board.chosen(name), seed) for seed in args.seeds] for name in args.methods}
    if not args.table:
        board.start(args, [run for of_method in towers.values() for run in of_method], "training")
        write_texts(args, [board.folder_of(args, *run) for of_method in towers.values() for run in of_method])

    names = {NONE: [own_name()]}
    names |= {name: [board.folder_of(args, *run).name for run in runs] for name, runs in towers.items()}
    reports = {run: board.read(text_file(args, run)) for run in args.runs}
    cells = cells_of(reports, names)
    titles = {NONE: NONE, **{name: board.METHODS[name]["title"] for name in args.methods}}

    file = args.results / "answers.json"
    figures, protocols = costs.earlier(file, args.seeds, names)
    ahead = board.read(file)[DIFFERENCE] if figures else {}
    for task, of_titles in figures_of(cells).items():
        figures[task] = figures.get(task, {}) | of_titles
    protocols |= {run: report["protocol"] for run, report in reports.items()}
    ahead |= differences(cells)

    lines = costs.table(figures, titles)
    if ahead:
        lines += ["", *difference_table(ahead, titles)]
    print("\n".join(lines))
    summary = {"table": lines, "seeds": args.seeds, "protocols": protocols}
    board.write(file, {**summary, "figures": costs.summarized(figures), DIFFERENCE: ahead})
    draw(figures, titles, args.results / "answers.png")


# ---- Measuring ----


def own_name() -> str:
    """What reports call the model's own tower."""
    from hf_pmgaft.cli.attack_vlm import OWN

    return OWN


def text_file(args: argparse.Namespace, run: str) -> Path:
    """The report of a run on what the LLaVA writes."""
    return Path(args.output_dir) / f"answers-{run}.json"


def write_texts(args: argparse.Namespace, folders: Sequence[Path]) -> None:
    """Lets the LLaVA write through each tower. What stands in a run's verdict file is not written again."""

    def one(run: str) -> str | None:
        file = text_file(args, run)
        towers = ["--towers", *map(str, folders)] if folders else []
        files = ["--output_file", str(file), "--verdict_file", str(file.with_suffix(".jsonl"))]
        command = [sys.executable, "-m", "hf_pmgaft.cli", "attack-vlm", *towers, *RUNS[run][1], *SAME, *files]
        with file.with_suffix(".log").open("w") as log:
            environment = {**os.environ, **board.ONE_THREAD}
            done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
        return f"{file} ended with code {done.returncode}: see its log" if done.returncode else None

    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        failed = [text for text in pool.map(one, args.runs) if text]
    if failed:
        sys.exit("error: " + "\n".join(failed))


def cells_of(reports: Mapping[str, Mapping[str, Any]], names: Mapping[str, Sequence[str]]) -> Cells:
    """What the reports of the runs have of each task and radius; `names` are those of a method's towers."""
    from hf_pmgaft.downstream.answer_evaluation import CLEAN

    cells: Cells = {}
    for run, report in reports.items():
        for method, of_method in names.items():
            for tower in of_method:
                for task, of_radii in report["towers"][tower].items():
                    for radius, cell in of_radii.items():
                        if radius == CLEAN and run.startswith("pgd"):  # the ensemble's texts again
                            continue
                        title = radius if radius == CLEAN else f"{radius}, {RUNS[run][0]}"
                        place = cells.setdefault(task, {}).setdefault(title, {})
                        place.setdefault(method, []).append(cell)
    return cells


# ---- What is shown ----


def figures_of(cells: Cells) -> costs.Figures:
    """Reports' own figures, times 100: of each task and condition, by method, one of each seed."""

    def figure(cell: Mapping[str, Any]) -> float:
        name, *_ = cell
        return 100 * cell[name]

    return {
        task: {
            title: {method: [figure(cell) for cell in seeds] for method, seeds in of_methods.items()}
            for title, of_methods in of_titles.items()
        }
        for task, of_titles in cells.items()
    }


def differences(cells: Cells) -> dict[str, dict[str, dict[str, Any]]]:
    """By how much PGD leaves more than the ensemble, of each image's mean over seeds, with the paired 95 % interval.

    By task, radius and method. The interval is the bootstrap's over images; that over seeds is no part of it.
    """
    from hf_pmgaft.downstream.scores import POOLED
    from hf_pmgaft.evaluation.outcomes import paired

    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task, of_titles in cells.items():
        attacked = [title.split(", ") for title in of_titles if ", " in title]
        for radius in [radius for radius, attack in attacked if attack == ENSEMBLE and [radius, PGD] in attacked]:
            for method, ensemble in of_titles[f"{radius}, {ENSEMBLE}"].items():
                pgd = of_titles[f"{radius}, {PGD}"][method]
                pair = paired(POOLED, *([[score, 1] for score in over_seeds(seeds)] for seeds in (ensemble, pgd)))
                found.setdefault(task, {}).setdefault(radius, {})[method] = {
                    "points": round(100 * pair.difference, 2),
                    "interval_95": [round(100 * end, 2) for end in pair.interval],
                    "images PGD leaves higher, lower": [pair.gained, pair.lost],
                }
    return found


def over_seeds(seeds: Sequence[Mapping[str, Any]]) -> list[float]:
    """The mean over seeds of each image's worst score so far."""
    return [statistics.fmean(of_image) for of_image in zip(*(cell["worst_scores"] for cell in seeds), strict=True)]


def difference_table(ahead: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """A row for each task and radius, a column for each method, in Markdown."""
    lines = [[DIFFERENCE, "radius", *titles.values()]]
    lines.append(["---"] * len(lines[0]))
    for task, of_radii in ahead.items():
        for radius, of_methods in of_radii.items():
            cells = []
            for name in titles:
                low, high = of_methods[name]["interval_95"]
                cells.append(f"{of_methods[name]['points']:+.1f} ({low:+.1f} to {high:+.1f})")
            lines.append([task, radius, *cells])
    return [f"| {' | '.join(line)} |" for line in lines]


def draw(figures: costs.Figures, titles: Mapping[str, str], picture: Path) -> None:
    """A panel per task, a group of bars per method. CIDEr-D, which goes to 10, is ten times itself there."""
    from study_plots import bars_with_spread

    panels = {}
    for task, of_titles in figures.items():
        scale, unit = (0.1, "CIDEr-D x 10") if task == "caption" else (1, "VQA accuracy in %")
        if task.startswith("pope"):
            unit = "F1 of yes in %"
        panels[f"{task}\n{unit}"] = {
            title: {
                titles[name]: (scale * statistics.fmean(values), scale * costs.spread(values))
                for name, values in of_methods.items()
            }
            for title, of_methods in of_titles.items()
        }
    bars_with_spread(panels, picture)


if __name__ == "__main__":
    main()
