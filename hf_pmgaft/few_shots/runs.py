"""Rows on one or several processes: each once, in a process of its own, so that one that fails costs no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

import torch

from .row import Row

LOG = "log.txt"
_SECONDS_TO_STOP = 30.0


@dataclass
class Outcome:
    """What became of the rows that were left to compute.

    Attributes:
        seconds (`dict[str, float]`): How long each row took that was computed now, by name.
        failed (`dict[str, str]`): Why others failed.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def run_rows(
    rows: Sequence[Row],
    work: Callable[[Row], None],
    num_processes: int = 1,
    say: Callable[[Row, float | None, float], None] = lambda row, seconds, left: None,
    preload: Sequence[str] = (),
) -> Outcome:
    """Computes the rows that are not done, so many at once.

    A row is a process: what it prints goes to its log, what it raises or dies of costs no other row, and it ends with
    this process, whatever ends that. A row that starts from another one's model waits for it.

    Args:
        rows (list of `Row`): In the order in which they are computed.
        work (`Callable`): Computes one row; a function of a module.
        num_processes (`int`): Rows at once. Accelerators are dealt out in turn.
        say (`Callable`): Is called after each row with the row, its seconds (`None` if it failed), and about how
            many seconds the rest will take.
        preload (`list[str]`): Modules that rows need and that take long to import.
    """
    outcome = Outcome()
    todo = [row for row in rows if not row.is_done()]
    folders = {row.folder: row for row in todo}
    running: dict[int, _Running] = {}
    context = _context(preload)
    durations: list[tuple[Row, float]] = []
    try:
        while todo or running:
            # Rows that can start
            for slot in sorted(set(range(num_processes)) - {each.slot for each in running.values()}):
                row = _next(todo, folders)
                if row is not None:
                    todo.remove(row)
                    started = _Running.start(context, row, work, slot, num_processes)
                    running[started.process.sentinel] = started

            # Rows that end
            for sentinel in wait(list(running)):
                ended = running.pop(sentinel)
                reason = ended.reason_of_failure()
                seconds = time.monotonic() - ended.since
                folders.pop(ended.row.folder)
                if reason is None:
                    outcome.seconds[ended.row.name] = seconds
                    if ended.row.tests:  # those that others start from are no measure of them
                        durations.append((ended.row, seconds))
                else:
                    outcome.failed[ended.row.name] = reason
                    todo = _without_dependents(ended.row, todo, folders, outcome)
                left = seconds_left(durations, [*todo, *(each.row for each in running.values())], num_processes)
                say(ended.row, seconds if reason is None else None, left)
    finally:
        # Also one that an interruption met between its start and its place among those that run
        names = {str(row.folder) for row in rows}
        for process in multiprocessing.active_children():
            if process.name in names:
                _stop(process)
    return outcome


def seconds_left(durations: Sequence[tuple[Row, float]], rows: Sequence[Row], num_processes: int = 1) -> float:
    """About how long rows will take, from those that are done: of the same method and shots, or the nearest to it.

    Example:
        >>> def row(method, seed):
        ...     return Row("pets", method, 1, seed, "plain", Path(f"{method}-{seed}"))
        >>> done = [(row("tecoa", 0), 10.0), (row("apt", 0), 30.0)]
        >>> seconds_left(done, [row("apt", 1), row("fap", 0)])
        50.0
    """
    if not durations:
        return 0.0
    total = 0.0
    for row in rows:
        for is_like in (
            lambda other, row=row: (other.method, other.shots) == (row.method, row.shots),
            lambda other, row=row: other.shots == row.shots,
            lambda other, row=row: True,
        ):
            alike = [seconds for other, seconds in durations if is_like(other)]
            if alike:
                total += statistics.fmean(alike)
                break
    return total / num_processes


# ---- One row ----


@dataclass
class _Running:
    row: Row
    process: multiprocessing.process.BaseProcess
    slot: int
    since: float

    @classmethod
    def start(
        cls,
        context: multiprocessing.context.BaseContext,
        row: Row,
        work: Callable[[Row], None],
        slot: int,
        num_processes: int,
    ) -> _Running:
        row.folder.mkdir(parents=True, exist_ok=True)
        process = context.Process(target=_run, name=str(row.folder), args=(row, work, slot, num_processes))
        process.start()
        return cls(row, process, slot, time.monotonic())

    def reason_of_failure(self) -> str | None:
        """Why a row that has ended is not done, `None` if it is."""
        self.process.join()
        code = self.process.exitcode
        log = self.row.folder / LOG
        if code == 0 and self.row.is_done():
            return None
        if code is not None and code < 0:
            return f"it was ended by {signal.Signals(-code).name}; see {log}"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        return f"{lines[-1] if lines else f'it ended with code {code}'} (see {log})"


def _stop(process: multiprocessing.process.BaseProcess) -> None:
    process.terminate()
    process.join(_SECONDS_TO_STOP)
    if process.is_alive():
        process.kill()
        process.join()


def _run(row: Row, work: Callable[[Row], None], slot: int, num_processes: int) -> None:
    """The process of one row."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with (row.folder / LOG).open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    multiprocessing.set_start_method(None, force=True)  # a loader's workers start as they do in `pmgaft train`
    _take_share(slot, num_processes)
    try:
        work(row)
    except KeyboardInterrupt:
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def _end_with_parent() -> None:
    """Ends this process when its parent ends, be it by kill -9."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _take_share(slot: int, num_processes: int) -> None:
    """Leaves this process its share of the cores, and one accelerator."""
    if num_processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // num_processes))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if devices == [""]:
        devices = [str(number) for number in range(torch.cuda.device_count())]
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]


def _context(preload: Sequence[str]) -> multiprocessing.context.BaseContext:
    """Processes that are forked from one that has imported everything, where the system has that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_pmgaft.few_shots.runs", *preload])
    return context


# ---- Which row is next ----


def _next(todo: Sequence[Row], folders: dict[Path, Row]) -> Row | None:
    """The first row that waits for no other one."""
    return next((row for row in todo if row.after is None or row.after not in folders), None)


def _without_dependents(failed: Row, todo: list[Row], folders: dict[Path, Row], outcome: Outcome) -> list[Row]:
    """The rows that are left when one fails that others start from."""
    lost = [row for row in todo if row.after == failed.folder]
    for row in lost:
        folders.pop(row.folder)
        outcome.failed[row.name] = f"{failed.name}, from which it starts, failed"
    return [row for row in todo if row not in lost]
