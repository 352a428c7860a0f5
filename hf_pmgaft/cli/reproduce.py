"""Says what a recipe runs, what that costs and what is published for it; with --run it does it.

    pmgaft reproduce pmg_aft
    pmgaft reproduce pmg_aft --tflops 60 --eps 4/255
    pmgaft reproduce pmg_aft --run --bf16 --push_to_hub --hub_model_id user/clip-pmgaft

Flags of `pmgaft train` after the recipe's name go to the run, and into the estimate. The estimate counts operations
of the image tower, which are nearly all, for a ViT at 224 pixels; no GPU was timed, so it takes your word for what
yours sustains. Memory is what was measured on a ViT-B/32, scaled for a larger tower.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config import PMGAFTConfig
from ..evaluation.tables import render
from .errors import one_line_errors
from .parser import make_parser
from .recipes import FOLDER, first_line, recipe_files
from .train_arguments import DataArguments, ModelArguments

FACTS = FOLDER / "published.json"
EMBEDDED = "emoji"  # which takes minutes: there is nothing to plan
# What a backward pass costs beside a forward pass: of the pixels alone, and of the parameters.
PIXEL_BACKWARD = 1
PARAMETER_BACKWARD = 2
# MiB that a run on a ViT-B/32 holds, and that each image adds (docs/speed.md), by tuning and bf16.
MEMORY = {
    ("vision_tower", False): (2157, 58),
    ("vision_tower", True): (2244, 34),
    ("last_blocks", False): (1033, 40),
    ("last_blocks", True): (1214, 27),
    ("peft", False): (655, 141),
    ("peft", True): (1002, 70),
    ("r_adapter", False): (1091, 95),
    ("r_adapter", True): (1775, 67),
    ("deep_prompts", False): (796, 75),
    ("deep_prompts", True): (1353, 52),
}


@dataclass(frozen=True)
class Tower:
    """A ViT image tower at its own resolution.

    Attributes:
        tokens, width, layers, patch (`int`): Its shape; `tokens` with the class token, `patch` in pixels.
        parameters (`int`): Of the whole CLIP, text tower included.
    """

    tokens: int
    width: int
    layers: int
    patch: int
    parameters: int

    @property
    def gflop(self) -> float:
        """Operations of a forward pass of one image, in 10^9; a multiplication and an addition are two.

        Example:
            >>> round(TOWERS["openai/clip-vit-base-patch32"].gflop, 1)
            8.8
        """
        block = 24 * self.tokens * self.width**2 + 4 * self.tokens**2 * self.width
        embedding = 2 * (self.tokens - 1) * 3 * self.patch**2 * self.width
        return (self.layers * block + embedding) / 1e9

    @property
    def activations(self) -> int:
        """What the activations of one image are proportional to."""
        return self.tokens * self.width * self.layers


TOWERS = {
    "openai/clip-vit-base-patch32": Tower(50, 768, 12, 32, 151_277_313),
    "openai/clip-vit-base-patch16": Tower(197, 768, 12, 16, 149_620_737),
    "openai/clip-vit-large-patch14": Tower(257, 1024, 24, 14, 427_616_513),
}
MEASURED = TOWERS["openai/clip-vit-base-patch32"]


@dataclass(frozen=True)
class Plan:
    """What a recipe with its flags runs.

    Attributes:
        model_args, data_args, config: The parsed options of `pmgaft train`.
        images (`int`, *optional*): Images that are trained on, if that is known.
        steps (`int`, *optional*): Optimizer steps, if that is known.
        evaluated (`int`): Images of all evaluation sets together; 0 if unknown.
    """

    model_args: ModelArguments
    data_args: DataArguments
    config: PMGAFTConfig
    images: int | None
    steps: int | None
    evaluated: int

    @property
    def batch(self) -> int:
        """Images of one optimizer step."""
        return self.config.train_batch_size * self.config.gradient_accumulation_steps * self.config.world_size


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process; `flags` are those of `pmgaft train`."""
    names = [file.stem for file in recipe_files() if file.stem != EMBEDDED]
    parser = make_parser("reproduce", __doc__, script)
    parser.add_argument("recipe", choices=names, metavar="RECIPE", help=f"One of {', '.join(names)}.")
    parser.add_argument("--run", action="store_true", help="Do it, after the estimate.")
    parser.add_argument(
        "--tflops", type=float, default=50.0, help="What your GPUs together sustain in such a run, in 10^12 a second."
    )
    args, args.flags = parser.parse_known_args(argv)
    if not args.tflops > 0:
        parser.error(f"You passed --tflops {args.tflops}, at which nothing ends. Pass a number above 0.")
    return args


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Prints what a command line asks for, and runs it if it asks for that."""
    from . import train

    args = parse(argv, script)
    options = ["--recipe", args.recipe, *args.flags]
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    plan = make_plan(*train.parse(options), facts["train_images"])

    print(first_line(FOLDER / f"{args.recipe}.yaml"), end="\n\n")
    passes = facts["passes"][plan.config.objective]
    costs = what_it_costs(plan, passes, args.tflops)
    show("What runs", what_runs(plan))
    show("What it costs", costs)
    print(what_is_published(facts["figures"].get(args.recipe, [])))

    if args.run:
        print()
        train.main(options)


# ---- The plan ----


def make_plan(
    model_args: ModelArguments, data_args: DataArguments, config: PMGAFTConfig, train_images: dict[str, int]
) -> Plan:
    """What a run with these options does, as far as can be told without its data.

    Args:
        model_args, data_args, config: The parsed options of `pmgaft train`.
        train_images (`dict[str, int]`): Sizes of training sets, by the names that recipes give them.
    """
    images = train_images.get(data_args.dataset_name)
    if data_args.shots is not None:
        classes = _num_classes(data_args.dataset_name)
        images = None if classes is None else data_args.shots * classes

    plan = Plan(model_args, data_args, config, images, None, _num_evaluated(data_args))
    if config.max_steps > 0:
        return replace(plan, steps=config.max_steps)
    if images is None:
        return plan
    steps = images // plan.batch if config.dataloader_drop_last else math.ceil(images / plan.batch)
    return replace(plan, steps=math.ceil(config.num_train_epochs * steps))


def _num_classes(dataset_name: str) -> int | None:
    """How many classes a known set has."""
    from ..suites.known import find_known_set
    from ..suites.numbering import kept_class_names

    known = find_known_set(dataset_name)
    return None if known is None else len(kept_class_names(known.entry))


def _num_evaluated(data_args: DataArguments) -> int:
    """The images of a suite's sets under the limit."""
    from ..suites.suite import read_suite

    if not data_args.suite:
        return 0
    entries = read_suite(data_args.suite)
    names = data_args.suite_sets or list(entries)
    sizes = [entries[name].get("num_images", 0) for name in names]
    largest = [size[-1] if isinstance(size, (list, tuple)) else size for size in sizes]
    return sum(min(size, data_args.limit or size) for size in largest)


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
        "attack": f"{config.attack}, {config.norm}, eps {config.eps}, {config.num_steps} steps of {config.step_size}",
        "optimizer": f"{config.optim.value}, learning rate {config.learning_rate:g}, warm-up {config.warmup_steps:g}, "
        f"{'no clipping' if not config.max_grad_norm else f'clipped to norm {config.max_grad_norm:g}'}",
    }
    if plan.evaluated:
        limit = f", at most {data_args.limit:,} images a set" if data_args.limit else ""
        rows["evaluated on"] = f"{data_args.suite}: {plan.evaluated:,} images{limit}, before and after"
        rows["by"] = f"pgd, eps {config.eval_eps or config.eps}, {config.eval_num_steps} steps, {config.eval_loss}"
    return rows


def what_it_costs(plan: Plan, passes: dict[str, int], tflops: float) -> dict[str, str]:
    """Time, memory and disk in words.

    Args:
        plan (`Plan`): What runs.
        passes (`dict[str, int]`): Passes of the objective over a batch, beside the attack's: of the `student`, with
            gradients of its parameters, and of the `teacher`.
        tflops (`float`): What the machine sustains, in 10^12 operations a second.
    """
    tower = TOWERS.get(plan.model_args.model_name_or_path)
    if tower is None:
        return {"unknown": f"the shape of {plan.model_args.model_name_or_path}; known are {', '.join(TOWERS)}"}
    config = plan.config
    rows = {}

    # Time
    attack = config.num_steps * (1 + PIXEL_BACKWARD)
    step = passes["student"] * (1 + PARAMETER_BACKWARD) + passes["teacher"] + attack
    if plan.steps is not None:
        rows["training"] = _time(step * tower.gflop * plan.steps * plan.batch, tflops)
    if plan.evaluated:
        walk = 1 + config.eval_num_steps * config.eval_restarts * (1 + PIXEL_BACKWARD)
        rows["evaluation"] = "at most " + _time(2 * walk * tower.gflop * plan.evaluated, tflops)

    # Memory
    if (config.tuning, config.bf16) in MEMORY:
        fixed, image = MEMORY[config.tuning, config.bf16]
        fixed *= tower.parameters / MEASURED.parameters
        image *= tower.activations / MEASURED.activations
        gib = (fixed + image * config.train_batch_size) / 1024
        how = "measured on a CPU" if tower is MEASURED else "scaled from ViT-B/32, not measured"
        rows["memory"] = f"{gib:.1f} GiB a process at {config.train_batch_size} images each ({how})"

    # Disk
    copies = 1 + _states_of(config.optim.value)  # of the weights' size, in a checkpoint
    checkpoints = (config.save_total_limit or 1) + 1
    gigabytes = 4 * tower.parameters * (1 + checkpoints * copies) / 1e9
    rows["disk"] = f"{gigabytes:.1f} GB at most for checkpoints, beside the sets"
    return rows


def what_is_published(figures: Sequence[dict[str, Any]]) -> str:
    """A table of published figures in %, or a sentence that none are known."""
    if not figures:
        return "No published figures are at hand."
    attacks = list(dict.fromkeys(key for row in figures for key in row if key not in ("source", "setting")))
    rows = [["published (%)", *attacks, "setting"]]
    for row in figures:
        rows.append([row["source"], *(f"{row[key]:.1f}" if key in row else "" for key in attacks), row["setting"]])
    return render(rows, "text") + "\nCompare with runs of the same sets, images, templates and attack alone."


def _states_of(optimizer: str) -> int:
    """Numbers that an optimizer keeps for each weight."""
    if optimizer.startswith("adamw"):
        return 2
    return 1 if optimizer.startswith("sgd") else 0


def _time(gflop: float, tflops: float) -> str:
    hours = gflop / 1e3 / tflops / 3600
    length = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    return f"{length} at {tflops:g} TFLOP/s ({gflop / 1e6:,.0f} PFLOP)"


if __name__ == "__main__":
    main()
