"""Compares fine-tuning methods on the embedded default, over seeds, and prints the table of the README.

    python examples/emoji/compare.py

Each row is one method at the same budget: `examples/run_pmgaft.py --objective NAME --seed S`, then
`examples/evaluate_robustness.py` on the full sets with PGD-50 and the margin loss at the training radius and at twice
it. Finished runs are kept in --output_dir and not made again. Choices are made with --split validation; its mean
leaves out the flags too, of which that style has 15.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import evaluate_robustness
import run_pmgaft

from hf_pmgaft.evaluation import RobustnessReport, SetResult

WORDS = str(Path(__file__).parent / "data" / "guidance_names.txt")
# How the table names a method, and the flags of run_pmgaft.py that make it.
METHODS = {
    "clean": ("clean fine-tuning", ["--objective", "clean"]),
    "tecoa": ("TeCoA", ["--objective", "tecoa"]),
    "pmg_aft": ("PMG-AFT", ["--objective", "pmg_aft"]),
    "pmg_aft_words": ("PMG-AFT, guided by more words", ["--objective", "pmg_aft", "--guidance_names", WORDS]),
    "fare": ("FARE", ["--objective", "fare"]),
}
IN_DOMAIN = "animals"
LEFT_OUT = {"test": {IN_DOMAIN}, "validation": {IN_DOMAIN, "flags"}}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of training.")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="What to compare.")
    parser.add_argument("--eps", nargs="+", default=["4/255", "8/255"], help="Radii of evaluation; the first trains.")
    parser.add_argument("--num_steps", type=int, default=50, help="Steps of PGD in evaluation.")
    parser.add_argument(
        "--split", default="test", choices=["test", "validation"], help="Drawing style to evaluate on."
    )
    parser.add_argument("--output_dir", default="outputs/compare", help="Where runs and reports go.")
    parser.add_argument("--file", help="Write the table, and all reports' means, as JSON too.")
    parser.add_argument("flags", nargs="*", help="After --: further flags of run_pmgaft.py for every run.")
    return parser.parse_args()


def report_of(args: argparse.Namespace, model: str, folder: Path) -> RobustnessReport:
    """The report of a model, made now or before."""
    file = folder / f"{args.split}-pgd{args.num_steps}-{'-'.join(eps.replace('/', 'of') for eps in args.eps)}.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["--model", model, "--split", args.split, "--num_steps", str(args.num_steps)]
        evaluate_robustness.main([*command, "--eps", *args.eps, "--output_file", str(file)])
    return RobustnessReport.load(file)


def train(args: argparse.Namespace, method: str, seed: int) -> Path:
    """The folder of a tuned model, made now or before. It is trained without a look at any evaluation set."""
    folder = Path(args.output_dir) / f"{method}-{seed}"
    if not (folder / "model.safetensors").exists():
        flags = [*METHODS[method][1], "--seed", str(seed), "--eps", args.eps[0], "--output_dir", str(folder)]
        run_pmgaft.main([*flags, "--do_eval", "false", *args.flags])
    return folder


def figures(sets: list[SetResult], radii: list[str]) -> list[float]:
    """Clean and robust accuracies at the radii in %, means over sets."""
    keys = sorted(sets[0].attacks, key=lambda attack: radii.index(attack.split()[-1]))
    rows = [[result.clean_accuracy, *(result.attacks[key] for key in keys)] for result in sets]
    return [100 * statistics.fmean(column) for column in zip(*rows, strict=True)]


def zero_shot_sets(report: RobustnessReport, split: str) -> list[SetResult]:
    """The sets whose mean is reported."""
    return [result for result in report.sets if result.name not in LEFT_OUT[split]]


def paired_difference(ours: list[list[SetResult]], theirs: list[list[SetResult]], key: str) -> tuple[float, float]:
    """Mean difference of verdicts in points over the zero-shot sets, and half its 95 % interval.

    Paired by seed and image: an image's difference is averaged over seeds, its variance taken over the images of a
    set, and the sets count the same. The spread over seeds is not in the interval: the table shows it.
    """
    means, variances = [], []
    for i in range(len(ours[0])):
        pairs = [(a[i].verdicts[key], b[i].verdicts[key]) for a, b in zip(ours, theirs, strict=True)]
        seeds = [[x - y for x, y in zip(a, b, strict=True)] for a, b in pairs]
        images = [statistics.fmean(values) for values in zip(*seeds, strict=True)]
        means.append(statistics.fmean(images))
        variances.append(statistics.variance(images) / len(images))
    return 100 * statistics.fmean(means), 100 * 1.96 * math.sqrt(sum(variances)) / len(means)


def main() -> None:
    args = parse()
    base = report_of(args, str(Path(__file__).parent / "model"), Path(args.output_dir) / "none")
    reports = {}
    for method in args.methods:
        folders = [train(args, method, seed) for seed in args.seeds]
        reports[METHODS[method][0]] = [report_of(args, str(folder), folder) for folder in folders]
    robust = "".join(f" robust {eps} |" for eps in args.eps)
    lines = [
        f"| method | seeds | clean |{robust} {IN_DOMAIN}: clean | robust {args.eps[0]} |",
        "|---" * (5 + len(args.eps)) + "|",
    ]
    for name, of_seeds in {"none": [base], **reports}.items():
        columns = []
        for report in of_seeds:
            tuned = [result for result in report.sets if result.name == IN_DOMAIN]
            columns.append([*figures(zero_shot_sets(report, args.split), args.eps), *figures(tuned, args.eps)[:2]])
        cells = []
        for values in zip(*columns, strict=True):
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1f}{spread}")
        lines.append(f"| {name} | {len(of_seeds) if name != 'none' else '-'} | {' | '.join(cells)} |")
    print("\n".join(lines))
    summary = {"table": lines, "protocol": base.protocol, "seeds": args.seeds, "minus_tecoa": {}}
    for name in reports if "TeCoA" in reports else ():
        if name.startswith("PMG-AFT"):
            pair = [[zero_shot_sets(report, args.split) for report in reports[method]] for method in (name, "TeCoA")]
            differences = {key: paired_difference(*pair, key) for key in ("clean", *base.sets[0].attacks)}
            for key, (mean, half) in differences.items():
                print(f"{name} minus TeCoA, {key}: {mean:+.1f} points (95 % {mean - half:+.1f} to {mean + half:+.1f})")
            summary["minus_tecoa"][name] = differences
    if args.file:
        Path(args.file).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
