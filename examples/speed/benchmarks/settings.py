"""How much quicker a step is by recipes of the attack, and by settings of threads, allocators and the processor."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hf_pmgaft.evaluation.tables import render

from .common import BATCH, run_worker, write
from .step import forget_peak, resident
from .steps import Case, Ours

PLAIN = "none of them"
GIB = 2**30
# Read when a process starts, so that each is measured in one of its own.
ENVIRONMENTS: dict[str, dict[str, str]] = {
    PLAIN: {},
    "MALLOC_ARENA_MAX=1": {"MALLOC_ARENA_MAX": "1"},
    "MALLOC_MMAP_THRESHOLD_=64 KiB": {"MALLOC_MMAP_THRESHOLD_": str(2**16)},
    "MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_=1 GiB": {
        "MALLOC_MMAP_THRESHOLD_": str(GIB),
        "MALLOC_TRIM_THRESHOLD_": str(GIB),
    },
    "THP_MEM_ALLOC_ENABLE=1": {"THP_MEM_ALLOC_ENABLE": "1"},
    "ONEDNN_DEFAULT_FPMATH_MODE=BF16": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
}
THREADED: dict[str, dict[str, str]] = {
    f"2 threads, OMP_WAIT_POLICY={policy}": {"OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": "2"}
    for policy in ("PASSIVE", "ACTIVE")
}
# Options of the trainer.
RECIPES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "tau=0": {"attack_kwargs": {"tau": 0}},
    'attack_precision="bf16"': {"attack_precision": "bf16"},
    "torch_compile": {"torch_compile": True},
}


@contextlib.contextmanager
def flushed_denormals():
    """The processor takes numbers too small for its usual format for 0."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


@contextlib.contextmanager
def medium_precision():
    """Products of float32 matrices may run in bf16: not exact."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


CALLS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "torch.set_flush_denormal(True)": flushed_denormals,
    'torch.set_float32_matmul_precision("medium")': medium_precision,
}


def run(args: argparse.Namespace) -> None:
    """Prints what a step costs under each setting, beside none of them.

    That is CPU time and wall time, and peak memory where each setting has a process of its own.
    """
    medians: dict[str, dict[str, dict]] = {}
    for model in args.models:
        case = {"model": model, "method": "pmg_aft", "tuning": args.tuning, "prompts": 25}
        case["batch_size"] = args.batch_size or BATCH[model]
        for num_steps in args.num_steps:
            name = f"{model}, {args.tuning}, batch {case['batch_size']}, K {num_steps}"
            if "processes" in args.kinds:
                medians[f"{name}, processes of their own"] = by_processes({**case, "num_steps": num_steps}, args)
            if "recipes" in args.kinds:
                medians[f"{name}, one process"] = in_turn({**case, "num_steps": num_steps}, args.repeats)
            print(f"{name}: done", file=sys.stderr)

    # Table
    rows = [["setting", "CPU s of a step", "this / none", "wall s", "this / none", "peak MiB", "this / none"]]
    for name, settings in medians.items():
        rows.append([name, *[""] * 6])
        for setting, costs in settings.items():
            ratio = {key: f"{value / settings[PLAIN][key]:.2f}" for key, value in costs.items()}
            row = [f"  {setting}", f"{costs['cpu']:.3f}", ratio["cpu"], f"{costs['wall']:.3f}", ratio["wall"]]
            row += [f"{costs['peak'] / 2**20:.0f}", ratio["peak"]] if "peak" in costs else ["", ""]
            rows.append(row)
    print(render(rows), end="\n\n")
    write(args, medians=medians)


class Timer:
    """CPU and wall seconds of calls, by name."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __call__(self, step: Callable[[], None]) -> None:
        clocks = {"cpu": time.process_time, "wall": time.perf_counter}
        starts = {name: clock() for name, clock in clocks.items()}
        step()
        for name, clock in clocks.items():
            self.seconds[name].append(clock() - starts[name])

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.seconds.items()}


def in_turn(case: Case, repeats: int) -> dict[str, dict[str, float]]:
    """Medians of steps under recipes and calls, interleaved in this process."""
    timers: dict[str, Timer] = defaultdict(Timer)
    with contextlib.ExitStack() as stack:
        steps = {}
        for name, options in RECIPES.items():
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            # One log line in the whole run, so that its figures are taken in the first step alone.
            steps[name] = (Ours(case, folder, **options).step, contextlib.nullcontext)
        steps |= {name: (steps[PLAIN][0], context) for name, context in CALLS.items()}

        for step, _ in steps.values():  # which warms up
            step()
        for _ in range(repeats):
            for name, (step, context) in steps.items():
                with context():
                    timers[name](step)
    return {name: timer.medians() for name, timer in timers.items()}


def by_processes(case: Case, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians of processes under each environment, in turn."""
    preloads = {f"LD_PRELOAD={Path(path).name}": {"LD_PRELOAD": path} for path in args.preload}
    settings = {**ENVIRONMENTS, **preloads, **THREADED}
    repeats: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(args.repeats):
        for name, environment in settings.items():
            threads = 2 if name in THREADED else args.threads
            repeats[name].append(run_worker(args, {**case, "steps": args.steps}, threads, environment))
    return {
        name: {key: statistics.median(costs[key] for costs in measured) for key in measured[0]}
        for name, measured in repeats.items()
    }


def work(args: argparse.Namespace) -> None:
    """Times a few steps in a process of its own, after one to warm up, and prints their costs."""
    case = json.loads(args.worker)
    timer = Timer()
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        step = Ours(case, folder).step
        step()
        forget_peak()
        for _ in range(case["steps"]):
            timer(step)
    print(json.dumps({**timer.medians(), "peak": resident("VmHWM") - before}))
