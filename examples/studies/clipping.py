"""What clipping gradients does to a recipe of SGD, on the embedded default.

    python examples/studies/clipping.py --threads 2

Trains with the authors' kind of budget, SGD with momentum 0.9 without weight decay or augmentation, at a learning rate
that times 120 steps is that of the recipe pmg_aft times its 3,900; once with gradients clipped to norm 1, Trainer's
default, and once as they are. Each run is measured on all eight groups of emoji as the demo does (PGD-20 with the
margin loss at 4/255). The table and every run go to results/clipping.json; a run that stands there is not made again,
so that the same line goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from hf_pmgaft.files import write_whole

RESULTS = Path(__file__).parent / "results" / "clipping.json"
IN_DOMAIN = "animals"  # the group that is tuned on
LEARNING_RATE = 3.25e-4
BUDGET = {
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "learning_rate": LEARNING_RATE,
    "weight_decay": 0,
    "augmentation": 0,
    "logging_steps": 1,  # so that the norm of every step is known
    "disable_tqdm": "true",
}
FIGURES = ("clean", "robust", "moved", "clipped", "grad_norm")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Seeds of training.")
    parser.add_argument("--norms", type=float, nargs="+", default=[1, 0], help="What to clip to; 0 does not clip.")
    parser.add_argument("--threads", type=int, help="Threads of the computation; all cores if not given.")
    parser.add_argument("--file", type=Path, default=RESULTS, help="JSON of the table and the runs.")
    parser.add_argument("flags", nargs="*", help="After --: further flags of `pmgaft train` for every run.")
    return parser.parse_args(argv)


def measured(norm: float, seed: int, flags: list[str]) -> dict[str, Any]:
    """Trains and evaluates once.

    Its figures are means over the groups in %, how far the weights moved, the share of clipped steps, and the mean
    norm of the gradients.
    """
    from hf_pmgaft.cli import train

    with tempfile.TemporaryDirectory() as folder:
        options = {**BUDGET, "max_grad_norm": norm, "seed": seed, "output_dir": folder}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        trainer, *_ = train.set_up([*words, *flags])
        before = trained_weights(trainer.model)
        trainer.train()
        moved = torch.linalg.vector_norm(trained_weights(trainer.model) - before)
        report = trainer.evaluate_robustness()

    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    return {
        "max_grad_norm": norm,
        "seed": seed,
        "clean": 100 * report.mean("clean_accuracy", leave_out=IN_DOMAIN),
        "robust": 100 * report.mean("robust_accuracy", leave_out=IN_DOMAIN),
        "clean_of_all": 100 * report.mean_clean_accuracy,
        "robust_of_all": 100 * report.mean_robust_accuracy,
        "moved": moved.item(),
        "clipped": statistics.fmean(0 < norm < value for value in norms),
        "grad_norm": statistics.fmean(norms),
        "steps": len(norms),
        "protocol": report.protocol_hash,
        "sets": {result.name: [result.clean_accuracy, result.robust_accuracy] for result in report.sets},
    }


def trained_weights(model: torch.nn.Module) -> torch.Tensor:
    """A copy of all that is trained, as one vector."""
    weights = [parameter.detach().flatten() for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat(weights).double().cpu()


def table(runs: list[dict[str, Any]]) -> list[str]:
    """The runs in Markdown, a row per norm: means over seeds, and their spread."""
    lines = [
        "| max_grad_norm | seeds | clean | robust | moved (L2) | clipped steps | mean gradient norm |",
        "|---" * 7 + "|",
    ]
    for norm in dict.fromkeys(run["max_grad_norm"] for run in runs):
        of_norm = [run for run in runs if run["max_grad_norm"] == norm]
        cells = [f"{norm:g}", str(len(of_norm))]
        for name, digits in zip(FIGURES, (1, 1, 3, 2, 1), strict=True):
            values = [run[name] for run in of_norm]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.{digits}f}{spread}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def write(file: Path, value: Any) -> None:
    """Writes JSON so that a reader never sees a part of it."""
    write_whole(file, json.dumps(value, indent=1) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Makes the runs that the file does not hold yet, and prints the table of all."""
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)

    # What was made before
    budget = {**BUDGET, "flags": args.flags}
    stored = json.loads(args.file.read_text(encoding="utf-8")) if args.file.exists() else {}
    runs = stored.get("runs", [])
    if stored and stored["budget"] != budget:
        raise SystemExit(f"error: {args.file} holds runs of another budget. Pass another --file, or remove it.")
    done = {(run["max_grad_norm"], run["seed"]) for run in runs}

    for seed in args.seeds:
        for norm in args.norms:
            if (norm, seed) not in done:
                runs.append(measured(norm, seed, args.flags))
                write(args.file, {"table": table(runs), "budget": budget, "runs": runs})
    print("\n".join(table(runs)))


if __name__ == "__main__":
    main()
