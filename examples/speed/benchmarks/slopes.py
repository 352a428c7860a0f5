"""How the cost of a step grows with attack steps, classes, images and the size of the model."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections import defaultdict
from typing import Any

from hf_pmgaft.evaluation.tables import render

from .common import write
from .step import count_operations
from .steps import Case, Ours

BASE: Case = {
    "model": "embedded default",
    "method": "pmg_aft",
    "tuning": "full",
    "num_steps": 2,
    "prompts": 160,
    "batch_size": 64,
    "noise": True,
}
# What is varied, the rest being as in the base: values, and the unit of the slope.
AXES = {
    "num_steps": ([1, 2, 4, 8], 1, "attack step"),
    "prompts": ([100, 400, 1600], 100, "100 classes"),
    "batch_size": ([16, 32, 64, 128], 1, "image"),
    "model": (["embedded default", "ViT-B/32", "ViT-B/16"], 1, "GFLOP"),
}


def run(args: argparse.Namespace) -> None:
    """Prints the CPU time of a step at each value, and the slopes of the lines through them."""
    rows = [["what grows", "values", "CPU seconds of a step", "slope", "per", "r"]]
    slopes = {}
    for axis in args.axes:
        values, unit, name = AXES[axis]
        cases = [{**BASE, axis: value} for value in values]
        if axis == "model":
            cases = [{**case, "batch_size": args.batch_size} for case in cases]
        medians, operations = time_steps(cases, args.repeats)
        amounts = [count / 1e9 for count in operations] if axis == "model" else [value / unit for value in values]
        line = fit(amounts, medians)
        slopes[axis] = {"values": values, "amounts": amounts, "medians": medians, **line}

        seconds = ", ".join(f"{median:.3f}" for median in medians)
        rows.append([axis, ", ".join(map(str, values)), seconds, f"{line['slope']:.5f}", name, f"{line['r']:.3f}"])
    print(render(rows), end="\n\n")
    write(args, base=BASE, slopes=slopes)


def fit(amounts: list[float], seconds: list[float]) -> dict[str, float]:
    """The line through the points: slope, intercept, and the correlation that says how straight they lie."""
    slope, intercept = statistics.linear_regression(amounts, seconds)
    return {"slope": slope, "intercept": intercept, "r": statistics.correlation(amounts, seconds)}


def time_steps(cases: list[Case], repeats: int) -> tuple[list[float], list[int]]:
    """Medians of the interleaved repeats, in seconds of CPU time, and counted operations, of each case."""
    seconds: dict[int, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        steps: list[Any] = [Ours(case, stack.enter_context(tempfile.TemporaryDirectory())).step for case in cases]
        operations = [count_operations(step) for step in steps]  # warms up, too
        for _ in range(repeats):
            for row, step in enumerate(steps):
                start = time.process_time()
                step()
                seconds[row].append(time.process_time() - start)
    return [statistics.median(seconds[row]) for row in range(len(cases))], operations
