"""Ranks every method on the embedded default, each at its best of 8 configurations.

    python examples/studies/leaderboard.py search    # the configurations of leaderboard.yaml, on the validation style
    python examples/studies/leaderboard.py           # the chosen ones, on the test style: table, picture and page
    python examples/studies/leaderboard.py rank --split validation --seeds 0   # as in choosing a recipe of one's own

A method's configuration is chosen by the mean of clean and robust accuracy (PGD-20 with the margin loss at 4/255) over
the validation style's groups other than animals (tuned on) and flags (15 images), with seed 0; all of them stay in
results/leaderboard_search.json. The chosen one is trained with each seed and measured on the seven groups that were
not tuned on: clean on the full test sets, robust by AutoAttack `fast` at 4/255 on the images of
leaderboard_subset.json; and, clean, on the drawings of shift.yaml's further styles, among all 1,526 names. On the
validation style it is six groups, clean in full and AutoAttack on 30 images of each.

Every run is a process of its own with one thread, --jobs of them at once; finished runs are kept in --output_dir and
not made again. What the ranked ones came to, image by image, also goes to results/leaderboard_runs.json, from which
the table is made (leaderboard_validation_runs.json on that style); remove a run from it to have it made anew. A rank
is one more than the number of methods that are ahead by a paired interval, over images and seeds, without zero;
methods of one rank are tied.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from tqdm.auto import tqdm

from hf_pmgaft.embedded import emoji_folder
from hf_pmgaft.files import check_output_file, write_whole

HERE = Path(__file__).parent
RESULTS = HERE / "results"
EMOJI = emoji_folder()

METHODS = yaml.safe_load((HERE / "leaderboard.yaml").read_text(encoding="utf-8"))
SEARCH = RESULTS / "leaderboard_search.json"
RUNS = {"test": RESULTS / "leaderboard_runs.json", "validation": RESULTS / "leaderboard_validation_runs.json"}

BUDGET = 8  # configurations of a method
EPS = "4/255"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # environment of a run

# What is measured, and on what. The drawing style by what a run is for, and the groups of a style.
STYLES = {"search": "validation", "validation": "validation", "test": "test", "costs": "test", "stronger": "test"}
GROUPS = {
    "validation": ("smileys", "food", "travel", "activities", "objects", "symbols"),
    "test": ("smileys", "food", "travel", "activities", "objects", "symbols", "flags"),
}
PGD = ["--num_steps", "20", "--loss", "margin"]
AUTOATTACK = ["--attacks", "autoattack,version=fast"]
# Further styles that neither training nor any choice saw; the suite also has the two that are measured anyway.
SHIFT = [name for name in yaml.safe_load((EMOJI / "shift.yaml").read_text()) if name not in ("twemoji", "noto_v1")]
CLEAN = ["--attacks", "fgsm"]
RETRIEVAL = ["--caption_column", "label,tags", "--max_samples"]
STRONGER = [
    "--attacks",
    "pgd,num_steps=20,loss=margin",
    "pgd,num_steps=20,loss=ce",
    "pgd,num_steps=100,restarts=2,loss=margin",
    "pgd,num_steps=100,restarts=2,loss=ce",
]
# By what a run is for, and by a name: flags of evaluate_robustness.py. That of `search` chooses the configurations.
EVALUATIONS = {
    "training": {},
    "search": {"pgd": PGD},
    "validation": {"autoattack": [*AUTOATTACK, "--max_samples", "30"], "clean": CLEAN},
    "test": {
        "autoattack": [*AUTOATTACK, "--sample_ids", str(HERE / "leaderboard_subset.json")],
        "clean": CLEAN,
        "shift": CLEAN,
    },
    # For costs.py.
    "costs": {"retrieval": [*RETRIEVAL, "80", "--num_steps", "20", "--eps", EPS, "8/255"], "shift": PGD},
    "stronger": {
        "retrieval": [*RETRIEVAL, "20", *STRONGER, "--eps", EPS, "8/255"],
        "shift": ["--max_samples", "20", *STRONGER],
    },
}


def configurations(method: str) -> list[dict[str, Any]]:
    """The configurations of a method, as flags that differ between them."""
    grid = METHODS[method]["grid"]
    every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if len(every) != BUDGET and not METHODS[method].get("beyond"):
        raise ValueError(f"Method {method!r} has {len(every)} configurations; each gets {BUDGET}.")
    return every


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", nargs="?", default="rank", choices=["search", "rank", "run"], help="See above.")
    published = [name for name, method in METHODS.items() if not method.get("beyond")]
    parser.add_argument("--methods", nargs="+", default=published, choices=METHODS, help="Some of the methods.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of training, for the ranking.")
    parser.add_argument("--jobs", type=int, default=2, help="Runs at once, each with one thread.")
    parser.add_argument("--output_dir", default="outputs/leaderboard", help="Where runs and their reports go.")
    parser.add_argument(
        "--split", default="test", choices=EVALUATIONS, help="Drawing style to rank on; of a run what for."
    )
    parser.add_argument("--file", help="JSON, PNG and HTML of the ranking, without ending; beside the runs if absent.")
    run = parser.add_argument_group("run: one training and its evaluations, as the others start them")
    run.add_argument("--configuration", type=int, default=0, help="Number of the configuration.")
    run.add_argument("--seed", type=int, default=0, help="Seed of training.")
    args = parser.parse_args(argv)
    if args.what == "rank" and args.split not in RUNS:
        parser.error(f"--split {args.split} is no style to rank on; choose of {', '.join(RUNS)}.")
    return args


# ---- One run ----


def folder_of(args: argparse.Namespace, method: str, configuration: int, seed: int) -> Path:
    """The folder of a run."""
    return Path(args.output_dir) / f"{method}-{configuration}-{seed}"


def run(args: argparse.Namespace) -> None:
    """Trains a method's configuration and measures it. What was done before is not done again."""
    method = args.methods[0]
    folder = folder_of(args, method, args.configuration, args.seed)
    if not (folder / "cost.json").exists():
        train(args, method, folder)
    for name in EVALUATIONS[args.split]:
        evaluate(folder, name, args.split, folder)


def train(args: argparse.Namespace, method: str, folder: Path) -> None:
    """Trains without a look at any evaluation set, and writes what it cost."""
    from hf_pmgaft.cli import train as command

    # Options
    options = {
        **METHODS[method]["flags"],
        "seed": args.seed,
        "output_dir": str(folder),
        "do_eval": False,
        "overwrite": True,
    }
    for name, value in configurations(method)[args.configuration].items():
        if isinstance(value, dict) and isinstance(options.get(name), dict):
            options[name] = {**options[name], **value}
        else:
            options[name] = value
    if "backbone" in METHODS[method]:
        backbone = METHODS[method]["backbone"]
        options["model_name_or_path"] = str(folder_of(args, backbone, chosen(backbone), args.seed))
        options["recipe"] = "emoji"

    # Training, timed
    trainer, *_ = command.set_up([*as_flags(options), "--eps", EPS, "--disable_tqdm", "true"])
    start = time.process_time()
    trainer.train()
    seconds = time.process_time() - start
    trainer.save_model()

    cost = {
        "parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "seconds": round(seconds, 1),
        "step": trainer.state.global_step,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "options": options,
    }
    write(folder / "cost.json", cost)


def as_flags(options: dict[str, Any]) -> list[str]:
    """The options as a command line."""
    flags = []
    for name, value in options.items():
        if isinstance(value, dict):
            value = json.dumps(value)
        texts = value if isinstance(value, list) else [value]
        flags += [f"--{name}", *(str(text).replace("{emoji}", str(EMOJI)) for text in texts)]
    return flags


def evaluate(folder: Path, name: str, split: str, model: Path) -> None:
    """Measures a model, if that was not done before."""
    from hf_pmgaft.cli import evaluate as command

    file = report_file(folder, split, name)
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)

    # Sets
    style = STYLES[split]
    if name == "shift":
        sets = {"suite": str(EMOJI / "shift.yaml"), "suite_sets": SHIFT}
    else:
        sets = {"eval_sets": [f"{EMOJI / 'data'}:{group}@{style}" for group in GROUPS[style]]}
    if name not in ("shift", "retrieval"):  # which bring templates along, or have captions
        sets["prompt_template"] = "an emoji of {}"

    options = {
        "model": str(model),
        **sets,
        "eps": EPS,
        "output_file": str(file),
        "verdict_file": str(file.with_suffix(".jsonl")),
    }
    command.main([*as_flags(options), *EVALUATIONS[split][name]])


def report_file(folder: Path, split: str, name: str) -> Path:
    """The report of one of a run's evaluations."""
    return folder / f"{split}-{name}.json"


def report_files(folder: Path, split: str) -> list[Path]:
    """The reports of all of a run's evaluations."""
    return [report_file(folder, split, name) for name in EVALUATIONS[split]]


def write(file: Path, value: Any) -> None:
    """Writes JSON so that a reader never sees a part of it."""
    write_whole(file, json.dumps(value, indent=1) + "\n")


# ---- Many runs ----


def start(
    args: argparse.Namespace,
    runs: Iterable[tuple[str, int, int]],
    split: str,
    keep: Callable[[str, int, int], None] = lambda *run: None,
) -> None:
    """Makes the runs (method, configuration, seed) that are missing, several at once, and calls `keep` for each.

    `keep` is called for the runs that were there, too.
    """
    runs = list(runs)

    def one(todo: tuple[str, int, int]) -> str | None:
        method, configuration, seed = todo
        folder = folder_of(args, *todo)
        if all(file.exists() for file in (folder / "cost.json", *report_files(folder, split))):
            return keep(*todo)
        options = {"configuration": configuration, "seed": seed, "split": split, "output_dir": args.output_dir}
        command = [sys.executable, __file__, "run", "--methods", method, *as_flags(options)]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("w") as log:
            done = subprocess.run(
                command, env={**os.environ, **ONE_THREAD}, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            return f"{folder} ended with code {done.returncode}: see its log.txt"
        return keep(*todo)

    with ThreadPoolExecutor(args.jobs) as pool:
        failed = [text for text in tqdm(pool.map(one, runs), total=len(runs), desc=split, disable=not runs) if text]
    if failed:
        sys.exit("error: " + "\n".join(failed))


def backbones(runs: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """The runs that others are tuned on."""
    names = [(METHODS[method]["backbone"], seed) for method, _, seed in runs if "backbone" in METHODS[method]]
    return [(name, chosen(name), seed) for name, seed in names]


def load_report(file: Path):
    """A report of an evaluation."""
    from hf_pmgaft.evaluation.report import RobustnessReport

    return RobustnessReport.load(file)


def search(args: argparse.Namespace) -> None:
    """Tries every configuration of the methods on the validation style, and keeps what came out."""
    for name in args.methods:
        start(args, backbones([(name, 0, 0)]), "training")
        start(args, ((name, i, 0) for i in range(len(configurations(name)))), "search")

        rows = []
        for i, options in enumerate(configurations(name)):
            report = load_report(report_file(folder_of(args, name, i, 0), "search", "pgd"))
            clean, robust = (round(100 * report.mean(f"{key}_accuracy"), 2) for key in ("clean", "robust"))
            rows.append({**options, "clean": clean, "robust": robust, "mean": round((clean + robust) / 2, 2)})
        best = max(rows, key=lambda row: row["mean"])
        print(f"{METHODS[name]['title']}: {best}")

        searched = read(SEARCH)
        searched[name] = {"chosen": rows.index(best), "configurations": rows}
        write(SEARCH, {name: searched[name] for name in METHODS if name in searched})


def chosen(method: str) -> int:
    """The number of a method's chosen configuration."""
    searched = read(SEARCH)
    if method not in searched:
        raise ValueError(
            f"No configuration of {method!r} is chosen yet. Run the search: {Path(__file__).name} search."
        )
    return searched[method]["chosen"]


def read(file: Path) -> dict[str, Any]:
    """The content of a JSON file, empty if there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def check_places(args: argparse.Namespace) -> None:
    """Raises `ValueError` if the files of the figures cannot be written."""
    if args.file is not None:
        for ending in ("json", "png", "html"):
            check_output_file("--file", f"{args.file}.{ending}")


def rank(args: argparse.Namespace) -> None:
    """Trains the chosen configurations with every seed, measures them, and writes table, figures, picture and page."""
    check_places(args)
    file, columns = RUNS[args.split], list(EVALUATIONS[args.split])
    todo = {name: [(name, chosen(name), seed) for seed in args.seeds] for name in args.methods}
    complete(args, [run for runs in todo.values() for run in runs])

    # Rows
    runs = read(file)
    protocol = common_protocol(
        {"none"} | {key_of(*run) for of_method in todo.values() for run in of_method}, args.split
    )
    rows = {"none": row_of("no fine-tuning", [runs["none"]], columns)}
    for name in args.methods:
        title = METHODS[name]["title"] + (" *(second-hand)*" if METHODS[name].get("second_hand") else "")
        rows[name] = row_of(title, [runs[key_of(*run)] for run in todo[name]], columns)

    # Ranks
    for row in rows.values():
        for column in columns:
            row[f"{column}_rank"] = 1 + sum(ahead(other, row, column) for other in rows.values())
        both = ("autoattack", "clean")
        row["ahead_on_both"] = [name for name in rows if all(ahead(row, rows[name], column) for column in both)]

    # What is shown and kept
    lines = table(in_order(rows), columns)
    print("\n".join(lines))
    kept = {name: {key: value for key, value in row.items() if key != "verdicts"} for name, row in rows.items()}
    result = {"table": lines, "rows": kept, "seeds": args.seeds, "protocols": protocol}
    name = args.file or str(file).removesuffix("_runs.json")
    write(Path(f"{name}.json"), result)
    draw(rows, Path(f"{name}.png"))
    write_whole(f"{name}.html", page(kept, columns))


def in_order(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The methods by rank."""
    return sorted(rows.values(), key=lambda row: (row["autoattack_rank"], -row["autoattack"]))


def common_protocol(keys: Iterable[str], split: str) -> dict[str, str]:
    """The protocols that kept runs follow, by column, if they are the same."""
    file = RUNS[split]
    protocols = {json.dumps(read(file)[key]["protocols"]) for key in keys}
    if len(protocols) > 1:
        sys.exit(f"error: {file.name} holds runs of several protocols, which cannot be compared: {sorted(protocols)}.")
    return json.loads(protocols.pop())


def complete(args: argparse.Namespace, runs: list[tuple[str, int, int]]) -> None:
    """Makes those of the runs that the file of kept runs lacks, and measures the untuned model if that is missing."""
    lock, file = Lock(), RUNS[args.split]

    def keep(method: str, configuration: int, seed: int) -> None:
        with lock:
            runs = read(file)
            folder = folder_of(args, method, configuration, seed)
            runs[key_of(method, configuration, seed)] = outcome(folder, args.split)
            write(file, dict(sorted(runs.items())))

    missing = [run for run in runs if key_of(*run) not in read(file)]
    start(args, backbones(missing), "training")
    start(args, missing, args.split, keep)
    if "none" not in read(file):
        measure_none(args, args.split)
        write(file, {"none": outcome(Path(args.output_dir) / "none", args.split), **read(file)})


def measure_none(args: argparse.Namespace, split: str) -> None:
    """Measures the untuned model, if that was not done before."""
    for name in EVALUATIONS[split]:
        evaluate(Path(args.output_dir) / "none", name, split, EMOJI / "model")


def key_of(method: str, configuration: int, seed: int) -> str:
    """A run's key in leaderboard_runs.json: its method and seed, and the configuration that was chosen."""
    return f"{method} {json.dumps(configurations(method)[configuration])} seed {seed}"


def outcome(folder: Path, split: str) -> dict[str, Any]:
    """What is kept of a run: packed verdicts of each group, the protocols, and what training cost."""
    kept: dict[str, Any] = {"cost": read(folder / "cost.json"), "protocols": {}}
    kept["cost"].pop("options", None)
    for column in EVALUATIONS[split]:
        report = load_report(report_file(folder, split, column))
        keys = [worst(result) if column == "autoattack" else "clean" for result in report.sets]
        kept[column] = [packed(result.verdicts[key]) for result, key in zip(report.sets, keys, strict=True)]
        kept["protocols"][column] = report.protocol_hash
    return kept


def packed(verdicts: Iterable[int]) -> str:
    """Verdicts, 0 or 1, as a hexadecimal number with a leading 1."""
    return f"{int('1' + ''.join(str(int(bool(verdict))) for verdict in verdicts), 2):x}"


def unpacked(text: str) -> list[int]:
    """The verdicts that [`packed`] wrote as a number."""
    return [int(digit) for digit in f"{int(text, 16):b}"[1:]]


def row_of(title: str, runs: list[dict[str, Any]], columns: Iterable[str]) -> dict[str, Any]:
    """A method's figures: means over seeds, their spread, verdicts by column, seed, group and image, and costs."""
    row: dict[str, Any] = {"title": title, "seeds": len(runs), "verdicts": {}}
    for column in columns:
        verdicts = [[unpacked(group) for group in run[column]] for run in runs]
        means = [100 * statistics.fmean(map(statistics.fmean, groups)) for groups in verdicts]
        row["verdicts"][column] = verdicts
        row |= {column: statistics.fmean(means), f"{column}_std": statistics.stdev(means) if len(means) > 1 else 0.0}
        row[f"{column}_by_seed"] = [round(mean, 3) for mean in means]
    for key in ("parameters", "seconds", "peak_mib"):
        row[key] = statistics.median(run["cost"].get(key, 0) for run in runs)
    return row


def worst(result) -> str:
    """The last attack of a report, which goes on from what the ones before it left standing."""
    return list(result.attacks)[-1]


def ahead(other: dict[str, Any], row: dict[str, Any], column: str) -> bool:
    """Whether another method's paired difference has an interval above zero."""
    if other is row:
        return False
    mean, half = difference(other["verdicts"][column], row["verdicts"][column])
    return mean - half > 0


def difference(ours: list[list[list[int]]], theirs: list[list[list[int]]]) -> tuple[float, float]:
    """Mean paired difference in points, and half its 95 % interval over images and seeds.

    The variance over images (of an image's mean over seeds, by group) and that over seeds (of a seed's mean over
    images) are added, which counts their common part twice: the interval is no narrower than it should be. Where one
    side has a single run, such as the untuned model, it is paired with every seed of the other.
    """
    count = max(len(ours), len(theirs))
    ours, theirs = (side * count if len(side) == 1 else side for side in (ours, theirs))
    groups = len(ours[0])
    points = [
        [[x - y for x, y in zip(a[g], b[g], strict=True)] for g in range(groups)]
        for a, b in zip(ours, theirs, strict=True)
    ]

    # Over images
    by_image = [zip(*(seed[g] for seed in points), strict=True) for g in range(groups)]
    images = [[statistics.fmean(values) for values in group] for group in by_image]
    variance = sum(statistics.variance(group) / len(group) for group in images) / groups**2

    # Over seeds
    seeds = [statistics.fmean(map(statistics.fmean, seed)) for seed in points]
    if count > 1:
        variance += statistics.variance(seeds) / count
    return 100 * statistics.fmean(seeds), 100 * 1.96 * math.sqrt(variance)


def table(rows: list[dict[str, Any]], columns: Iterable[str]) -> list[str]:
    """The leaderboard in Markdown."""
    head = {"autoattack": ["rank", "method", "AutoAttack"], "clean": ["clean", "rank by clean"], "shift": ["shift"]}
    head = [name for column in columns for name in head[column]]
    lines = [head + ["trained parameters", "CPU seconds", "peak MiB"]]
    for row in rows:
        cells = {}
        for column in columns:
            spread = f" ± {row[f'{column}_std']:.1f}" if row["seeds"] > 1 else ""
            cells[column] = [f"{row[column]:.1f}{spread}"]
        cells["autoattack"] = [str(row["autoattack_rank"]), row["title"], *cells["autoattack"]]
        cells["clean"].append(str(row["clean_rank"]))
        costs = [f"{row[key]:,.0f}" if row["parameters"] else "" for key in ("parameters", "seconds", "peak_mib")]
        lines.append([cell for column in columns for cell in cells[column]] + costs)
    lines.insert(1, ["---"] * len(lines[0]))
    return [f"| {' | '.join(line)} |" for line in lines]


def page(rows: dict[str, dict[str, Any]], columns: Iterable[str]) -> str:
    """The leaderboard as a part of a page, from the rows that its JSON has."""
    from study_pages import Point, number, study_part

    head = ["method", "rank", "AutoAttack", "clean", "rank by clean", *(["shift"] if "shift" in columns else [])]
    lines = [[*head, "trained parameters", "CPU seconds", "peak MiB"]]
    for row in in_order(rows):
        figures = {name: number(row[name], row[f"{name}_std"] if row["seeds"] > 1 else None) for name in columns}
        ranks = {name: number(row[f"{name}_rank"], style="d") for name in ("autoattack", "clean")}
        cells = [ranks["autoattack"], figures["autoattack"], figures["clean"], ranks["clean"]]
        cells += [figures["shift"]] if "shift" in columns else []
        costs = [number(row[key], style=",.0f") for key in ("parameters", "seconds", "peak_mib")]
        lines.append([row["title"].replace("*", ""), *cells, *(costs if row["parameters"] else [""] * 3)])

    points = {
        row["title"].replace("*", ""): Point(
            row["clean"], row["autoattack"], row["clean_std"], row["autoattack_std"], group=place
        )
        for place, row in enumerate(rows.values())
    }
    return study_part(lines, points, "clean accuracy in %", f"accuracy under APGD-CE and APGD-T at {EPS} in %")


def draw(rows: dict[str, dict[str, Any]], picture: Path) -> None:
    """Clean against robust accuracy, a point per method with the spread over seeds."""
    from study_plots import scatter_with_spread

    keys = ("clean", "autoattack", "clean_std", "autoattack_std")
    points = {row["title"].replace("*", ""): tuple(row[key] for key in keys) for row in rows.values()}
    scatter_with_spread(points, picture, "clean accuracy in %", f"accuracy under APGD-CE and APGD-T at {EPS} in %")


if __name__ == "__main__":
    arguments = parse()
    {"search": search, "rank": rank, "run": run}[arguments.what](arguments)
