"""Few-shot grids, and rows that are computed at once; each is a function of a module, for a process of its own."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch

from hf_pmgaft import RobustnessReport
from hf_pmgaft.evaluation.report import SetResult
from hf_pmgaft.few_shots.grid import Grid
from hf_pmgaft.few_shots.row import Row

COUNTED = "computed.txt"  # every row that is begun adds a line
PROTOCOL = {"attacks": [], "headline": "linf 4/255", "seed": 0}


def make_grid(folder: Path, **entries) -> Grid:
    start = {"sets": ["one"], "methods": ["tecoa", "pmg_aft"], "shots": [1, "all"], "seeds": [0, 1], "model": "model"}
    return Grid.of({**start, "output_dir": str(folder), **entries})


def verdicts(seed: int, share: float, size: int = 50) -> list[int]:
    return (torch.rand(size, generator=torch.Generator().manual_seed(seed)) < share).int().tolist()


def result(name: str, clean: list[int], robust: list[int]) -> SetResult:
    shares = (sum(mask) / len(mask) for mask in (clean, robust))
    by_figure = {"sample_id": list(range(len(clean))), "clean": clean, "robust": robust}
    return SetResult(name, 4, len(clean), *shares, {}, verdicts=by_figure)


def compute(row: Row) -> None:
    """Makes up a row: accuracies that grow with the seed."""
    with (row.folder.parents[1] / COUNTED).open("a") as file:
        file.write(f"{row.name}\n")
    if row.options:
        row.note_trained({"steps": 3})
    if row.tests:
        clean, robust = verdicts(row.seed, 0.8), verdicts(row.seed + 10, 0.4 if row.method == "tecoa" else 0.6)
        sets = [result(test.name, clean, [a & b for a, b in zip(clean, robust, strict=True)]) for test in row.tests]
        provenance = {"few_shots": {"evaluation": row.measured_by()}}
        RobustnessReport(PROTOCOL, sets, provenance=provenance).save(row.report_file)


def fail_for_pmg_aft(row: Row) -> None:
    if row.method == "pmg_aft":
        raise ValueError("The learning rate\nis too high.")
    compute(row)


def die_for_pmg_aft(row: Row) -> None:
    if row.method == "pmg_aft":
        os.kill(os.getpid(), signal.SIGKILL)
    compute(row)


def fail_as_backbone(row: Row) -> None:
    if row.protocol == "backbone":
        raise RuntimeError("It is out of memory.")
    compute(row)


def compute_slowly(row: Row) -> None:
    """Is still at it when the test ends it, but for the first row."""
    if (row.method, row.seed, row.shots) != ("tecoa", 0, 1):
        (row.folder / "begun").touch()
        time.sleep(60)
    compute(row)


def compute_with_method_of_workers(row: Row) -> None:
    (row.folder / "method").write_text(multiprocessing.get_start_method())
    compute(row)
