"""Rows of a grid: each computed once, whatever becomes of the others or of the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import grids
from support.grids import COUNTED, make_grid
from support.paths import ROOT

from hf_pmgaft.few_shots.row import rows_of
from hf_pmgaft.few_shots.runs import Outcome, run_rows


@pytest.fixture(scope="module")
def option_names():
    from hf_pmgaft.cli.few_shot_checks import option_names

    return option_names()


@pytest.fixture
def rows(tmp_path, option_names):
    return rows_of(make_grid(tmp_path), option_names)


def computed(folder: Path) -> list[str]:
    file = folder / COUNTED
    return file.read_text().splitlines() if file.exists() else []


def test_every_row_is_computed_once(rows, tmp_path):
    told = []
    outcome = run_rows(rows, grids.compute, 2, lambda row, seconds, left: told.append((row.name, left)))
    assert not outcome.failed and set(outcome.seconds) == {row.name for row in rows}
    assert sorted(computed(tmp_path)) == sorted(row.name for row in rows) and len(rows) == 8
    assert all(row.is_done() for row in rows)
    assert [left > 0 for _, left in told] == [True] * 7 + [False]

    assert run_rows(rows, grids.compute) == Outcome()
    assert len(computed(tmp_path)) == 8


@pytest.mark.slow
def test_a_row_that_is_missing_is_the_only_one_that_is_computed(rows, tmp_path):
    run_rows(rows, grids.compute, 2)
    rows[3].report_file.unlink()
    outcome = run_rows(rows, grids.compute)
    assert list(outcome.seconds) == [rows[3].name] and len(computed(tmp_path)) == 9


def test_workers_of_a_row_start_as_those_of_any_training(rows):
    """By Python's own default, not each by importing everything anew as the row itself has done."""
    run_rows(rows[:1], grids.compute_with_method_of_workers)
    asked = [sys.executable, "-c", "import multiprocessing; print(multiprocessing.get_start_method())"]
    assert (rows[0].folder / "method").read_text() == subprocess.check_output(asked, text=True).strip()


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (grids.fail_for_pmg_aft, "ValueError: The learning rate is too high."),
        pytest.param(grids.die_for_pmg_aft, "ended by SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_a_row_that_fails_costs_no_other_and_is_tried_again(rows, tmp_path, work, reason):
    outcome = run_rows(rows, work, 2)
    assert set(outcome.failed) == {row.name for row in rows if row.method == "pmg_aft"}
    assert all(reason in text and "log.txt" in text for text in outcome.failed.values())
    assert all(row.is_done() == (row.method == "tecoa") for row in rows)

    again = run_rows(rows, grids.compute, 2)
    assert not again.failed and len(again.seconds) == 4
    assert len(computed(tmp_path)) == 8


def test_rows_start_from_another_one_when_it_is_done_and_fail_with_it(tmp_path, option_names):
    entries = {"backbones": {"robust": {"recipe": "emoji"}}, "methods": {"tecoa": {}, "apt": {"backbone": "robust"}}}
    rows = rows_of(make_grid(tmp_path, **entries), option_names)
    assert rows[0].protocol == "backbone" and {row.after for row in rows[1:]} == {None, rows[0].folder}

    outcome = run_rows(rows, grids.fail_as_backbone, 2)
    assert outcome.failed[rows[0].name].startswith("RuntimeError: It is out of memory.")
    lost = [row.name for row in rows if row.method == "apt"]
    assert {outcome.failed[name] for name in lost} == {"backbone robust, from which it starts, failed"}
    assert len(outcome.seconds) == 4

    assert not run_rows(rows, grids.compute, 2).failed
    order = computed(tmp_path)[4:]
    assert order[0] == "backbone robust" and sorted(order[1:]) == sorted(lost)


def start_slowly(folder: Path) -> subprocess.Popen:
    """A process that computes a grid, and has begun its second row."""
    code = f"""
import signal
import sys
from pathlib import Path
from support import grids
from hf_pmgaft.cli.few_shot_checks import option_names
from hf_pmgaft.few_shots.row import rows_of
from hf_pmgaft.few_shots.runs import run_rows
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells take from what runs in the background
    run_rows(rows_of(grids.make_grid(Path({str(folder)!r})), option_names()), grids.compute_slowly)
"""
    script = folder / "run.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(folder.glob("rows/*/begun")):
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.1)
    return process


def children_of(pid: int) -> list:
    import psutil

    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT])
def test_a_grid_that_is_killed_goes_on_with_the_rows_that_are_left(rows, tmp_path, how):
    import psutil

    process = start_slowly(tmp_path)
    children = children_of(process.pid)
    process.send_signal(how)
    process.wait(120)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert [row.is_done() for row in rows] == [True] + [False] * 7

    outcome = run_rows(rows, grids.compute, 2)
    assert not outcome.failed and len(outcome.seconds) == 7 and len(computed(tmp_path)) == 8
