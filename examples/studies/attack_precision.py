"""How much weaker attacks are whose gradients are in bfloat16, image by image, on the embedded default.

    python examples/studies/attack_precision.py --models none outputs/clip-pmgaft-emoji --attacks pgd
    python examples/studies/attack_precision.py --models none outputs/clip-pmgaft-emoji --attacks fast \\
        -- --sample_ids examples/studies/autoattack_subset.json

Each model is attacked twice with the same seed, by `pmgaft evaluate --attack_precision fp32` and `bf16`, on the eight
groups of emoji. Beside it stands float32 against itself with the next seed: what luck alone changes. `none` is the
model as it was shipped; `make demo` makes the other. Finished reports in --output_dir are not made again, and one that
was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from hf_pmgaft.cli import evaluate
from hf_pmgaft.embedded import emoji_folder
from hf_pmgaft.evaluation.intervals import PairedDifference, paired_difference
from hf_pmgaft.evaluation.report import RobustnessReport
from hf_pmgaft.evaluation.tables import points, render, span_of_points
from hf_pmgaft.files import check_output_file, check_output_folder, write_whole

ATTACKS = {"pgd": "pgd,num_steps=50,loss=margin", "fast": "autoattack,version=fast"}
HEADER = ["model", "attack", "other", "images", "stand", "of the other", "difference", "95 %", "more", "fewer", "p"]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--models", nargs="+", default=["none"], help="Folders of models; none is the embedded one.")
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS, help="PGD-50, or AutoAttack.")
    parser.add_argument("--eps", default="4/255", help="Radius in L-inf.")
    parser.add_argument("--seed", type=int, default=0, help="Of the attacks; luck is seen with the next one.")
    parser.add_argument("--output_dir", default="outputs/attack_precision", help="Where reports go.")
    parser.add_argument("--file", help="Write the figures as JSON too.")
    parser.add_argument("flags", nargs="*", help="After --: further flags of `pmgaft evaluate` for every run.")
    return parser.parse_args(argv)


def report_of(args: argparse.Namespace, model: str, attack: str, precision: str, seed: int) -> RobustnessReport:
    """The report of a model. It is made unless an earlier call has left it in the folder."""
    name = "-".join([Path(model).name, attack, args.eps.replace("/", "of"), precision, f"seed{seed}"])
    file = Path(args.output_dir) / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = str(emoji_folder() / "model") if model == "none" else model
        command = ["--model", folder, "--attacks", ATTACKS[attack], "--eps", args.eps, "--seed", str(seed)]
        command += ["--attack_precision", precision, "--output_file", str(file)]
        evaluate.main([*command, "--verdict_file", str(file.with_suffix(".jsonl")), *args.flags])
    return RobustnessReport.load(file)


def difference(first: RobustnessReport, second: RobustnessReport) -> PairedDifference:
    """By how much more often the images of all sets withstand the second attack than the first one."""
    verdicts = [
        [verdict for result in report.sets for verdict in result.verdicts["robust"]] for report in (first, second)
    ]
    return paired_difference(*verdicts)


def row(model: str, attack: str, other: str, first: RobustnessReport, second: RobustnessReport) -> dict[str, Any]:
    """What stands under an attack in float32 and under another one, and how many images more and fewer stand then."""
    pair = difference(first, second)
    standing = [sum(sum(result.verdicts["robust"]) for result in report.sets) for report in (first, second)]
    return {"model": model, "attack": attack, "other": other, "standing": standing, **asdict(pair)}


def cells(figures: dict[str, Any]) -> list[str]:
    """A row of figures as the table shows it."""
    shares = [f"{count / figures['n']:.2%}" for count in figures["standing"]]
    interval = [points(figures["difference"]), span_of_points(*figures["interval"])]
    flips = [str(figures["gained"]), str(figures["lost"]), f"{figures['p_value']:.2g}"]
    names = [figures["model"], figures["attack"], figures["other"], str(figures["n"])]
    return [*names, *shares, *interval, *flips]


def main(argv: list[str] | None = None) -> None:
    """Attacks what was not attacked yet, prints the table and writes the figures."""
    args = parse(argv)
    check_output_file("--file", args.file)
    check_output_folder("--output_dir", args.output_dir)

    rows = []
    for model, attack in product(args.models, args.attacks):
        exact = report_of(args, model, attack, "fp32", args.seed)
        coarse = report_of(args, model, attack, "bf16", args.seed)
        lucky = report_of(args, model, attack, "fp32", args.seed + 1)
        name = Path(model).name
        rows.append(row(name, attack, "bf16", exact, coarse))
        rows.append(row(name, attack, f"fp32, seed {args.seed + 1}", exact, lucky))

    print(render([HEADER, *map(cells, rows)]))
    if args.file:
        figures = {"protocol": exact.protocol, "seed": args.seed, "rows": rows}
        write_whole(args.file, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
