"""Says what a recipe runs, what that costs and what is published for it; with --run it does it.

    pmgaft reproduce pmg_aft
    pmgaft reproduce pmg_aft --tflops 60 --eps 4/255
    pmgaft reproduce pmg_aft --run --bf16 --push_to_hub --hub_model_id user/clip-pmgaft

Flags of `pmgaft train` after the recipe's name go to the run, and into the estimate. The estimate counts operations
of the image tower, which are nearly all, for a ViT at 224 pixels; no GPU was timed, so it takes your word for what
yours sustains. Memory is what was measured on a ViT-B/32, scaled for a larger tower. What is downloaded is asked from
the Hub, which downloads nothing. With too little disk for it, --run is refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from ..config import PMGAFTConfig
from ..evaluation.tables import render
from .costs import ASSUMED_TFLOPS, checkpoint_bytes, what_it_costs
from .errors import one_line_errors
from .parser import make_parser
from .recipes import FOLDER, first_line, recipe_files
from .run_plan import Plan, make_plan

FACTS = FOLDER / "published.json"
EMBEDDED = "emoji"  # which takes minutes: there is nothing to plan


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process; `flags` are those of `pmgaft train`."""
    names = [file.stem for file in recipe_files() if file.stem != EMBEDDED]
    parser = make_parser("reproduce", __doc__, script)
    parser.add_argument("recipe", choices=names, metavar="RECIPE", help=f"One of {', '.join(names)}.")
    parser.add_argument("--run", action="store_true", help="Do it, after the estimate.")
    parser.add_argument(
        "--tflops",
        type=float,
        help=f"What your GPUs together sustain in such a run, in 10^12 a second; {ASSUMED_TFLOPS:g} is assumed.",
    )
    args, args.flags = parser.parse_known_args(argv)
    if args.tflops is not None and not args.tflops > 0:
        parser.error(f"You passed --tflops {args.tflops}, at which nothing ends. Pass a number above 0.")
    return args


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Prints what a command line asks for, and runs it if it asks for that."""
    from . import train

    args = parse(argv, script)
    from .downloads import describe_room, find_downloads, find_needs, find_shortage  # brings in `datasets`

    options = ["--recipe", args.recipe, *args.flags]
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    plan = make_plan(*train.parse(options), facts["train_images"])

    print(first_line(FOLDER / f"{args.recipe}.yaml"), end="\n\n")
    passes = facts["passes"][plan.config.objective]
    show("What runs", what_runs(plan))
    costs = what_it_costs(plan, passes, args.tflops)
    downloads = find_downloads(plan)
    needs = find_needs(plan, downloads, checkpoint_bytes(plan))
    shortage = find_shortage(needs)
    costs |= {**downloads.rows(), "disk": describe_room(needs)}
    if shortage:
        costs["too little"] = shortage
    show("What it costs", costs)
    print(what_is_published(facts["figures"].get(args.recipe, [])))

    if args.run:
        if shortage:
            raise ValueError(shortage)
        print()
        train.main(options)


# ---- What is printed ----


def show(title: str, rows: dict[str, str]) -> None:
    """Prints rows under their title."""
    print(title)
    print("\n".join(f"  {name:<12} {value}" for name, value in rows.items()), end="\n\n")


def what_runs(plan: Plan) -> dict[str, str]:
    """The run in words, by a title each."""
    config, data_args = plan.config, plan.data_args
    images = "" if plan.images is None else f": {plan.images:,} images"
    steps = "steps as the set has them" if plan.steps is None else f"{plan.steps:,} steps"
    rows = {
        "model": plan.model_args.model_name_or_path,
        "trained on": f"{data_args.dataset_name}{images}, {steps} of {plan.batch} images",
        "method": f"{config.objective} {config.objective_kwargs or ''}, tuning {config.tuning}".replace(" ,", ","),
        "attack": _attack(config),
        "optimizer": f"{config.optim.value}, learning rate {config.learning_rate:g}, warm-up {config.warmup_steps:g}, "
        f"{'no clipping' if not config.max_grad_norm else f'clipped to norm {config.max_grad_norm:g}'}",
    }
    if plan.evaluated:
        limit = f", at most {data_args.limit:,} images a set" if data_args.limit else ""
        rows["evaluated on"] = f"{data_args.suite}: {plan.evaluated:,} images{limit}, before and after"
        rows["by"] = f"pgd, eps {config.eval_eps or config.eps}, {config.eval_num_steps} steps, {config.eval_loss}"
        if data_args.final_attacks:
            rows["by"] += f"; after training by {', '.join(data_args.final_attacks)} as well"
    return rows


def _attack(config: PMGAFTConfig) -> str:
    """What is done to the images of training, in words."""
    if config.attacks_images:
        return f"{config.attack}, {config.norm}, eps {config.eps}, {config.num_steps} steps of {config.step_size}"
    return "none" if config.noise_sigma is None else f"none; normal noise of sigma {config.noise_sigma}"


def what_is_published(figures: Sequence[dict[str, Any]]) -> str:
    """A table of published figures in %, or a sentence that none are known."""
    if not figures:
        return "No published figures are at hand."
    attacks = list(dict.fromkeys(key for row in figures for key in row if key not in ("source", "setting")))
    rows = [["published (%)", *attacks, "setting"]]
    for row in figures:
        rows.append([row["source"], *(f"{row[key]:.1f}" if key in row else "" for key in attacks), row["setting"]])
    return render(rows, "text") + "\nCompare with runs of the same sets, images, templates and attack alone."


if __name__ == "__main__":
    main()
