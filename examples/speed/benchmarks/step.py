"""Time and memory of one training step in several ways, and where the time of the package's own goes."""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import re
import resource
import statistics
import sys
import tempfile
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hf_pmgaft.evaluation.tables import render
from hf_pmgaft.zero_shot import Views

from .common import BATCH, run_worker, write
from .steps import WRITTEN, Case, Ours, emoji_images

OURS, BARE, LIMIT = "ours", "bare loop", "limit"
# Noise, losses, logs, and what the host does between the products.
REST = "rest"
PARTS = ("attack", "teacher", "clean pass", "adversarial pass", "backward", "optimizer", "data", REST)
# Kinds of operators, by the names that the profiler of torch gives them; the host is what is between them.
OPERATORS = {
    "products": r"aten::(addmm|mm|bmm|baddbmm)(_|$)|convolution|mkldnn",
    "attention": r"_scaled_dot_product|_flash_attention",
    "layer norm": r"layer_norm",
    "optimizer": r"adam|aten::_foreach",
    "copies": r"aten::(copy_|cat|fill_|zero_|stack|index.*|select_backward|slice_backward|clone|gather|scatter.*)$",
    "elementwise and others": r"aten::",
    "host": r"",
}


def run(args: argparse.Namespace) -> None:
    """Prints, per case, what each way costs and where our time goes."""
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[args.clock]
    if args.device == "cuda":
        clock = synchronized(clock)

    measured = []
    for case in cases(args):
        # Memory first, while this process holds nothing.
        memory = {way: run_worker(args, {**case, "way": way}) for way in ways_of(case)} if args.memory else {}
        measured.append({**case, **time_case(case, args.repeats, clock), "memory": memory})
        gc.collect()
        print(f"{case_name(case)}: done", file=sys.stderr)

    # Tables
    costs = [_HEADER]
    parts = [["where our time goes", *PARTS]]
    operators = [["and by operators", *OPERATORS]]
    for figures in measured:
        costs += case_rows(figures)
        parts.append([case_name(figures), *in_percent(figures["parts"], PARTS)])
        operators.append([case_name(figures), *in_percent(figures["operators"], OPERATORS)])
    print(render(costs), render(parts), render(operators), sep="\n\n", end="\n\n")
    write(args, cases=measured)


def cases(args: argparse.Namespace) -> list[Case]:
    """The models, methods, tunings, numbers of prompts and of attack steps that were asked for, each with each."""
    grid = itertools.product(args.models, args.methods, args.tunings, args.prompts, args.num_steps)
    every = [dict(zip(("model", "method", "tuning", "prompts", "num_steps"), row, strict=True)) for row in grid]
    for case in every:
        case |= {"device": args.device, "bf16": args.bf16}
        case["batch_size"] = args.batch_size or BATCH[case["model"]]
        if case["model"] == "embedded default":
            case["prompts"] = len(emoji_images().features["label"].names)
        if case["method"] == "fare":
            case["prompts"] = 0
    return [case for row, case in enumerate(every) if case not in every[:row]]


def case_name(case: Case) -> str:
    """How tables call a case."""
    name = f"{case['model']} {case['method']} {case['tuning']}, batch {case['batch_size']}, K {case['num_steps']}"
    if case["bf16"]:
        name += ", bf16"
    return f"{name}, {case['prompts']} prompts" if case["prompts"] else name


def ways_of(case: Case) -> list[str]:
    """The ways in which a case is measured. FARE has no text to encode anew, and so one way less."""
    return [name for name in ("plain", "plain, text cached", OURS, BARE) if name != "plain" or case["prompts"]]


# ---- Time ----


def synchronized(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock that waits for the GPU to finish before it is read."""

    def read() -> float:
        torch.cuda.synchronize()
        return clock()

    return read


def time_case(case: Case, repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Seconds of each way, interleaved, and the limit.

    The limit is the fewest floating point operations by which one of the ways does the step, as executed, at the rate
    of a large product of matrices that is measured between the steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(case, folder)
        steps = {name: WRITTEN[name](case, ours.batch).step for name in ways_of(case) if name != OURS}
        steps = {name: steps.get(name, ours.step) for name in ways_of(case)}
        operations = {name: count_operations(step) for name, step in steps.items()}  # warms up, too

        seconds: dict[str, list[float]] = defaultdict(list)
        rates, shares = [], Counter()
        for _ in range(repeats):
            rates.append(gemm_rate(clock, case["device"], torch.bfloat16 if case["bf16"] else torch.float32))
            for name, step in steps.items():
                start = clock()
                step()
                seconds[name].append(clock() - start)
            stopwatch = Stopwatch(clock)
            time_parts(ours, stopwatch)
            shares.update(stopwatch.seconds)

        by_operator = time_operators(ours.step, case["device"])

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    operations[LIMIT] = min(operations.values())
    medians[LIMIT] = operations[LIMIT] / max(rates)

    total = sum(shares.values())
    return {
        "seconds": dict(seconds),
        "medians": medians,
        "flop": operations,
        "peak_flop_per_second": max(rates),
        "parts": {name: value / total for name, value in shares.items()},
        "operators": by_operator,
    }


def count_operations(step: Callable[[], None]) -> int:
    """Floating point operations of a step."""
    with (counter := OperationCounter()):
        step()
    return counter.total


class OperationCounter(TorchDispatchMode):
    """Adds up floating point operations by the formulas of torch.

    Unlike `FlopCounterMode`, without hooks on every module, before which the lean image tower gives way.
    """

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        self.total += formula(*args, **(kwargs or {}), out_val=out) if formula else 0
        return out


def gemm_rate(clock: Callable[[], float], device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating point operations per second of a product of two square matrices."""
    edge = 8192 if device == "cuda" else 2048
    left, right = torch.rand(2, edge, edge, device=device).to(dtype)
    left @ right
    start = clock()
    for _ in range(3):
        left @ right
    return 3 * 2 * edge**3 / (clock() - start)


class Stopwatch:
    """Seconds by part, without those of the parts within it."""

    def __init__(self, clock: Callable[[], float]):
        self.clock, self.seconds = clock, Counter()
        self.inner: list[float] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.inner.append(0.0)
        start = self.clock()
        yield
        whole = self.clock() - start
        self.seconds[name] += whole - self.inner.pop()
        if self.inner:
            self.inner[-1] += whole

    def timed(self, name: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        return call


def time_parts(ours: Ours, stopwatch: Stopwatch) -> None:
    """One step of ours, from the data on, whose seconds go to its parts."""
    trainer, timed = ours.trainer, stopwatch.timed
    with contextlib.ExitStack() as stack:
        for owner, name, part in (
            (trainer.step, "perturb", "attack"),
            (trainer.teacher, "encode", "teacher"),
            (trainer.accelerator, "backward", "backward"),
        ):
            setattr(owner, name, timed(part, getattr(owner, name)))
            stack.callback(delattr, owner, name)

        for name, part in (("clean_embeds", "clean pass"), ("adversarial_embeds", "adversarial pass")):
            original = vars(Views)[name]
            stack.callback(setattr, Views, name, original)
            replacement = cached_property(timed(part, original.func))
            replacement.__set_name__(Views, name)
            setattr(Views, name, replacement)

        with stopwatch.part(REST):
            with stopwatch.part("data"):
                ours.batch = next(ours.batches)
            trainer.training_step(trainer.model, dict(ours.batch))
            with stopwatch.part("optimizer"):
                trainer.optimizer.step()
                trainer.model.zero_grad()


def time_operators(step: Callable[[], None], device: str = "cpu") -> dict[str, float]:
    """Shares of a step's time by kinds of operators, each without those that it calls; on a GPU, of its time."""
    cpu, cuda = torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[cpu, cuda] if device == "cuda" else [cpu]) as profile:
        with torch.profiler.record_function("step"):
            step()
    seconds = Counter()
    for event in profile.key_averages():
        if event.device_type == torch.autograd.DeviceType.CPU:  # kernels count with the operator that started them
            kind = next(kind for kind, pattern in OPERATORS.items() if re.search(pattern, event.key))
            seconds[kind] += event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
    return {kind: value / seconds.total() for kind, value in seconds.items()}


# ---- Memory ----


def work(args: argparse.Namespace) -> None:
    """Measures the peak memory and saved activations of one way, in a process of its own, and prints them.

    It makes two steps, since the second is the first that begins with the optimizer's state.
    """
    case = json.loads(args.worker)
    device = case["device"]
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        # One way
        if case["way"] == OURS:
            way = Ours(case, folder)
            model = way.trainer.model
        else:
            way = WRITTEN[case["way"]](case, {})
            model = way.model
            size = case["batch_size"]
            edge = model.config.vision_config.image_size
            way.batch["pixel_values"] = torch.rand(size, 3, edge, edge, device=device)
            way.batch["labels"] = torch.arange(size, device=device) % 2

        # Two steps
        way.step()
        forget_peak(device)
        with (saved := SavedActivations(model)):
            way.step()
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM") - before
        print(json.dumps({"peak": peak, "saved": saved.peak}))


def resident(field: str = "VmRSS") -> int:
    """Bytes in memory now, or (`VmHWM`) at most since `forget_peak`."""
    status = Path("/proc/self/status")
    if not status.exists():  # the peak since the start is all that there is to know
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(field)]
    return 1024 * int(line.split()[1])


def forget_peak(device: str = "cpu") -> None:
    """Lets the peak begin anew, so that what building the models took is left out."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class SavedActivations(torch.autograd.graph.saved_tensors_hooks):
    """The most bytes that graphs held at a time for their backward passes, parameters apart."""

    def __init__(self, model: torch.nn.Module):
        self.of_parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.held: Counter[int] = Counter()  # tensors, by storage
        self.now = 0
        self.peak = 0
        super().__init__(self.pack, lambda kept: kept.tensor)

    def pack(self, tensor: torch.Tensor) -> Kept:
        """Counts a tensor that a graph saves, until the graph lets go of it."""
        kept = Kept(tensor)
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key not in self.of_parameters:
            self.now += 0 if self.held[key] else size
            self.held[key] += 1
            self.peak = max(self.peak, self.now)
            weakref.finalize(kept, self.release, key, size)
        return kept

    def release(self, key: int, size: int) -> None:
        self.held[key] -= 1
        self.now -= 0 if self.held[key] else size


class Kept:
    """A saved tensor, which goes when its graph does."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


# ---- The tables ----

_HEADER = ["case", "median s", "this / ours", "GFLOP", "of the limit", "peak MiB", "this / ours", "saved MiB"]


def in_percent(of_step: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """What each part takes of a step, in %."""
    return [f"{100 * of_step.get(name, 0):.0f} %" for name in names]


def case_rows(figures: dict[str, Any]) -> list[list[str]]:
    """A line for the case, and one for each way."""
    medians, memory = figures["medians"], figures["memory"]
    rows = [[case_name(figures), *[""] * 7]]
    for name, median in medians.items():
        operations = figures["flop"][name]
        row = [f"  {name}", f"{median:.3f}", f"{median / medians[OURS]:.2f}", f"{operations / 1e9:.1f}"]
        row.append(f"{100 * medians[LIMIT] / median:.0f} %")
        if name in memory:
            peak, saved = memory[name]["peak"], memory[name]["saved"]
            row += [f"{peak / 2**20:.0f}", f"{peak / memory[OURS]['peak']:.2f}", f"{saved / 2**20:.0f}"]
        rows.append(row + [""] * (8 - len(row)))
    return rows
