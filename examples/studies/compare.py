"""Compares fine-tuning methods on the embedded default, over seeds, and prints the tables of docs/results.

    python examples/studies/compare.py
    python examples/studies/compare.py --evaluation fast
    python examples/studies/compare.py --evaluation standard --seeds 0

Each row is one method at the same budget: `examples/run_pmgaft.py --objective NAME --seed S`, then
`examples/evaluate_robustness.py`: with PGD-50 and the margin loss at the training radius and at twice it (pgd); with
PGD-50 and AutoAttack's APGD-CE and APGD-T at the training radius (fast), both on the full sets; or with the whole
AutoAttack on 320 images (standard). Finished runs are kept in --output_dir and not made again, and one that was killed
goes on where it was. Choices are made with --split validation; its mean leaves out the flags too, of which that style
has 15.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

from hf_pmgaft.cli import evaluate, train
from hf_pmgaft.embedded import emoji_folder
from hf_pmgaft.evaluation.report import RobustnessReport, SetResult
from hf_pmgaft.files import check_output_file, check_output_folder, write_whole

WORDS = str(emoji_folder() / "data" / "guidance_names.txt")
# How the table names a method, and the flags of run_pmgaft.py that make it.
METHODS = {
    "clean": ("clean fine-tuning", ["--objective", "clean"]),
    "tecoa": ("TeCoA", ["--objective", "tecoa"]),
    "pmg_aft": ("PMG-AFT", ["--objective", "pmg_aft"]),
    "pmg_aft_words": ("PMG-AFT, guided by more words", ["--objective", "pmg_aft", "--guidance_names", WORDS]),
    "fare": ("FARE", ["--objective", "fare"]),
    "pmg_aft_released": (
        "PMG-AFT, as its released code",
        ["--objective", "pmg_aft", "--objective_kwargs", '{"alpha": 1, "beta": 1, "scale": 1, "kl_reduction": "sum"}']
        + ["--image_mean", "0.485", "0.456", "0.406", "--image_std", "0.229", "0.224", "0.225"],
    ),
}
# Flags of evaluate_robustness.py; each attack goes on from what the ones before it left standing.
EVALUATIONS = {
    "pgd": [],
    "fast": ["--attacks", "pgd,num_steps=50,loss=ce", "pgd,num_steps=50,loss=margin", "autoattack,version=fast"],
    "standard": [
        *("--attacks", "autoattack,version=standard"),
        *("--sample_ids", str(Path(__file__).parent / "autoattack_subset.json")),
    ],
}
IN_DOMAIN = "animals"
LEFT_OUT = {"test": {IN_DOMAIN}, "validation": {IN_DOMAIN, "flags"}}


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of training.")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="What to compare.")
    parser.add_argument("--eps", nargs="+", default=["4/255", "8/255"], help="Radii of evaluation; the first trains.")
    parser.add_argument("--evaluation", default="pgd", choices=EVALUATIONS, help="Attacks of evaluation, see above.")
    parser.add_argument("--num_steps", type=int, default=50, help="Steps of PGD in the evaluation pgd.")
    parser.add_argument(
        "--split", default="test", choices=["test", "validation"], help="Drawing style to evaluate on."
    )
    parser.add_argument("--output_dir", default="outputs/compare", help="Where runs and reports go.")
    parser.add_argument("--file", help="Write the table, and all reports' means, as JSON too.")
    parser.add_argument("flags", nargs="*", help="After --: further flags of run_pmgaft.py for every run.")
    return parser.parse_args()


def report_of(args: argparse.Namespace, model: str, folder: Path) -> RobustnessReport:
    """The report of a model. It is made unless an earlier call has left it in the folder."""
    radii = args.eps if args.evaluation == "pgd" else args.eps[:1]
    kind = f"pgd{args.num_steps}" if args.evaluation == "pgd" else f"autoattack-{args.evaluation}"
    file = folder / f"{args.split}-{kind}-{'-'.join(eps.replace('/', 'of') for eps in radii)}.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["--model", model, "--split", args.split, "--num_steps", str(args.num_steps), "--eps", *radii]
        command += ["--output_file", str(file), "--verdict_file", str(file.with_suffix(".jsonl"))]
        evaluate.main([*command, *EVALUATIONS[args.evaluation]])
    return RobustnessReport.load(file)


def tuned(args: argparse.Namespace, method: str, seed: int) -> Path:
    """The folder of a tuned model. It is trained, without a look at any evaluation set, unless it is there."""
    folder = Path(args.output_dir) / f"{method}-{seed}"
    if not (folder / "model.safetensors").exists():
        flags = [*METHODS[method][1], "--seed", str(seed), "--eps", args.eps[0], "--output_dir", str(folder)]
        train.main([*flags, "--do_eval", "false", "--overwrite", "true", *args.flags])
    return folder


def attack_keys(sets: list[SetResult], radii: list[str]) -> list[str]:
    """The attacks of a report, in the order in which the radii were given."""
    return sorted(sets[0].attacks, key=lambda attack: radii.index(attack.split()[-1]))


def column_names(sets: list[SetResult], radii: list[str]) -> list[str]:
    """How the table heads the attacks: by radius, or, of several at one radius, by what each adds."""
    keys = attack_keys(sets, radii)
    if len({key.split()[-1] for key in keys}) == len(keys):
        return [f"robust {key.split()[-1]}" for key in keys]
    names = [key.partition(" linf")[0] for key in keys]
    return [names[0], *(f"+ {name}" for name in names[1:])]


def figures(sets: list[SetResult], radii: list[str]) -> list[float]:
    """Clean and robust accuracies at the radii in %, means over sets."""
    keys = attack_keys(sets, radii)
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
    places = range(len(ours[0]))
    return _over_sets(
        [[(a[i].verdicts[key], b[i].verdicts[key]) for a, b in zip(ours, theirs, strict=True)] for i in places]
    )


def mean_interval(seeds: list[list[SetResult]], key: str) -> tuple[float, float]:
    """Mean of verdicts in % over the zero-shot sets and seeds, and half its 95 % interval over the images."""
    return _over_sets([[(r[i].verdicts[key], [0] * r[i].num_samples) for r in seeds] for i in range(len(seeds[0]))])


def _over_sets(sets: list[list[tuple[list[int], list[int]]]]) -> tuple[float, float]:
    """Mean of `x - y` in %, and half its interval, from each set's and seed's verdicts `x` and `y` by image."""
    means = []
    variances = []
    for pairs in sets:
        seeds = [[x - y for x, y in zip(a, b, strict=True)] for a, b in pairs]
        images = [statistics.fmean(values) for values in zip(*seeds, strict=True)]
        means.append(statistics.fmean(images))
        variances.append(statistics.variance(images) / len(images))
    return 100 * statistics.fmean(means), 100 * 1.96 * math.sqrt(sum(variances)) / len(means)


def main() -> None:
    """Trains and measures what is missing, and prints the table and the differences from TeCoA."""
    args = parse()
    check_output_file("--file", args.file)
    check_output_folder("--output_dir", args.output_dir)

    # Reports
    base = report_of(args, str(emoji_folder() / "model"), Path(args.output_dir) / "none")
    reports = {}
    for method in args.methods:
        folders = [tuned(args, method, seed) for seed in args.seeds]
        reports[METHODS[method][0]] = [report_of(args, str(folder), folder) for folder in folders]

    # Table
    names = column_names(base.sets, args.eps)
    keys = attack_keys(base.sets, args.eps)
    headline = 0 if args.evaluation == "pgd" else -1  # the radius of training, or what AutoAttack leaves
    lines = [
        f"| method | seeds | clean | {' | '.join(names)} | 95 % | {IN_DOMAIN}: clean | {names[headline]} |",
        "|---" * (6 + len(names)) + "|",
    ]

    for name, of_seeds in {"none": [base], **reports}.items():
        columns = []
        for report in of_seeds:
            clean, *robust = figures([result for result in report.sets if result.name == IN_DOMAIN], args.eps)
            columns.append([*figures(zero_shot_sets(report, args.split), args.eps), clean, robust[headline]])

        cells = []
        for values in zip(*columns, strict=True):
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1f}{spread}")

        mean, half = mean_interval([zero_shot_sets(report, args.split) for report in of_seeds], keys[headline])
        cells.insert(-2, f"{max(mean - half, 0):.1f} to {min(mean + half, 100):.1f}")
        lines.append(f"| {name} | {len(of_seeds) if name != 'none' else '-'} | {' | '.join(cells)} |")
    print("\n".join(lines))

    # Differences from TeCoA, image by image
    summary = {"table": lines, "protocol": base.protocol, "seeds": args.seeds, "minus_tecoa": {}}
    others = [name for name in reports if name != "TeCoA"] if "TeCoA" in reports else []
    for name in others:
        pair = [[zero_shot_sets(report, args.split) for report in reports[method]] for method in (name, "TeCoA")]
        differences = {key: paired_difference(*pair, key) for key in ("clean", *base.sets[0].attacks)}
        for key, (mean, half) in differences.items():
            print(f"{name} minus TeCoA, {key}: {mean:+.1f} points (95 % {mean - half:+.1f} to {mean + half:+.1f})")
        summary["minus_tecoa"][name] = differences

    summary["flags"] = {name: [flag for r in of_seeds for flag in r.flags] for name, of_seeds in reports.items()}
    if args.file:
        write_whole(args.file, json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
