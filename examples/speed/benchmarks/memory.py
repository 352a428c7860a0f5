"""The largest batch per GiB of every tuning, from the measured peak at a few batch sizes."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from typing import Any

import torch
from transformers import TrainerCallback

from hf_pmgaft.evaluation.tables import render

from .common import run_worker, write
from .step import SavedActivations, forget_peak, resident
from .steps import Case, Ours

MIB = 2**20
# Far enough apart that what the images take shows beside what stays.
BATCHES = {"embedded default": [32, 64, 128], "ViT-B/32": [4, 12]}


def run(args: argparse.Namespace) -> None:
    """Prints, per model, tuning, precision and use of checkpointing, what a run holds and what each image adds."""
    room = f"batch in {args.gib:g} GiB"
    rows = [["case", "fixed MiB", "MiB an image", "saved MiB an image", "images a GiB", room]]
    cases = []
    precisions = ["fp32", "bf16"] if args.bf16 else ["fp32"]
    checkpointing = [False, True] if args.gradient_checkpointing else [False]
    for model, tuning, precision, again in itertools.product(args.models, args.tunings, precisions, checkpointing):
        case = {
            "model": model,
            "method": "pmg_aft",
            "tuning": tuning,
            "num_steps": 2,
            "prompts": 25,
            "device": args.device,
            "bf16": precision == "bf16",
            "gradient_checkpointing": again,
        }
        batches = args.batch_sizes or BATCHES[model]
        measured = [run_worker(args, {**case, "batch_size": size}) for size in batches]
        fit = fit_peaks(batches, [run["peak"] for run in measured], args.gib)
        fit["saved_per_image"] = statistics.linear_regression(batches, [run["saved"] for run in measured]).slope
        cases.append({**case, "batch_sizes": batches, "measured": measured, **fit})

        name = f"{model} {tuning}, {precision}{', checkpointing' if again else ''}"
        sizes = (fit["fixed"], fit["per_image"], fit["saved_per_image"])
        figures = [f"{size / MIB:.1f}" for size in sizes]
        rows.append([name, *figures, f"{fit['images_per_gib']:.0f}", str(fit["largest_batch"])])
        print(f"{name}: done", file=sys.stderr)
    print(render(rows), end="\n\n")
    write(args, cases=cases)


def fit_peaks(batches: list[int], peaks: list[int], gib: float) -> dict[str, Any]:
    """The line through the peaks, in bytes, and the largest batch that it leaves room for."""
    per_image, fixed = statistics.linear_regression(batches, peaks)
    room = max(gib * 2**30 - fixed, 0)
    return {
        "fixed": fixed,
        "per_image": per_image,
        "images_per_gib": 2**30 / per_image,
        "largest_batch": int(room / per_image),
    }


class Peak(TrainerCallback):
    """Peak memory of the second step, since the first makes the optimizer's state."""

    def __init__(self, model: torch.nn.Module, before: int, cuda: bool):
        self.before = before
        self.cuda = cuda
        self.saved = SavedActivations(model)

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            forget_peak("cuda" if self.cuda else "cpu")
            self.saved.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            self.saved.__exit__()
            self.peak = torch.cuda.max_memory_allocated() if self.cuda else resident("VmHWM") - self.before


def work(args: argparse.Namespace) -> None:
    """Measures two steps of `Trainer.train` in a process of its own, and prints what they took."""
    case: Case = json.loads(args.worker)
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        options = {"max_steps": 2, "gradient_checkpointing": case["gradient_checkpointing"]}
        trainer = Ours(case, folder, **options).trainer
        peak = Peak(trainer.model, before, cuda=case["device"] == "cuda")
        trainer.add_callback(peak)
        trainer.train()
    print(json.dumps({"peak": peak.peak, "saved": peak.saved.peak}))
