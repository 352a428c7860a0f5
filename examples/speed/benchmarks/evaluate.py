"""Verdicts under PGD and AutoAttack in several ways: images per second, passes, and how full the batches are."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from hf_pmgaft.evaluation.tables import render

from .common import SCRIPT, write
from .evaluation_ways import WAYS, Ways

Result = dict[str, Any]  # of `Ways.measure`
BATCH_SIZES = {"cpu": [64], "cuda": [64, 256, 1024]}
CASE = ("model", "group", "images", "num_steps", "apgd_steps", "queries", "clock")
RADIUS = "radius"  # asks for a radius in place of verdicts
BEFORE = "before"


# ---- In a process of its own ----


def work(args: argparse.Namespace) -> None:
    """Judges what a task asks for, one after the other, and writes what each took into a file of this process."""
    task = json.loads(args.worker)
    device = torch.device(task["device"])
    rank = 0
    if "LOCAL_RANK" in os.environ:
        state = PartialState(cpu=device.type == "cpu")
        device, rank = state.device, state.process_index

    ways = Ways(task["case"], device)
    results: list[Any] = []
    for request in task["requests"]:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if request["way"] == RADIUS:
            results.append(ways.radius(request["level"]))
        else:
            results.append(ways.measure(**request))

    content = {"results": results, "is_repeated": ways.case.is_repeated}
    (Path(task["folder"]) / f"{rank}.json").write_text(json.dumps(content))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        os._exit(0)  # gloo's own end hangs now and then


def run_requests(
    args: argparse.Namespace,
    case: dict[str, Any],
    requests: Sequence[dict[str, Any]],
    checkout: str | None = None,
    processes: int = 1,
) -> tuple[list[list[Any]], bool]:
    """Has requests answered by processes of their own.

    Args:
        case (`dict`): That of [`Ways`].
        requests (list of `dict`): Arguments of `Ways.measure`, or a level whose radius is asked for.
        checkout (`str`, *optional*): Folder of another version of the package, in place of the one that is imported.
        processes (`int`): How many share the images.

    Returns:
        For each request what each process answered, and whether images are repeated.
    """
    launch = []
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    if checkout is not None:
        path = [str(Path(checkout).resolve()), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))

    with tempfile.TemporaryDirectory() as folder:
        task = {"case": case, "requests": list(requests), "device": args.device, "folder": folder}
        worker = [str(SCRIPT), "evaluate", "--threads", str(args.threads), "--worker", json.dumps(task)]
        done = subprocess.run([sys.executable, *launch, *worker], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(worker)} failed:\n{done.stderr[-4000:]}")
        contents = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(processes)]

    by_request = [list(answers) for answers in zip(*(content["results"] for content in contents), strict=True)]
    return by_request, contents[0]["is_repeated"]


# ---- What is measured ----


def run(args: argparse.Namespace) -> None:
    """Prints the tables of every shape and batch size."""
    check(args)
    checkouts = {"ours": None} if args.before is None else {"ours": None, BEFORE: args.before}
    batch_sizes = args.batch_size or BATCH_SIZES[args.device]

    cases = []
    for shape, batch_size in product(args.shape, batch_sizes):
        case = {"shape": shape, "batch_size": batch_size, **{name: getattr(args, name) for name in CASE}}
        print(f"\n{shape}, batches of {batch_size}, {args.images} images of {args.group}, {args.device}")
        radii = find_radii(args, case)
        print(", ".join(f"{level:.0%} stand at {255 * eps:.3g}/255" for level, eps in radii.items()))
        measured = measure_ways(args, case, radii, checkouts)
        print(render(rows_of_ways(measured, batch_size)))

        shared = {}
        if args.processes > 1:
            shared = measure_processes(args, case, radii, checkouts, measured)
            print(render(rows_of_processes(measured, shared, args.processes)))
        sizes = measure_sizes(args, case, checkouts)
        if sizes:
            print(render(rows_of_sizes(sizes, batch_size)))
        cases.append({"case": case, "radii": radii, "ways": measured, "processes": shared, "sizes": sizes})
    write(args, cases=[as_json(case) for case in cases])


def check(args: argparse.Namespace) -> None:
    """Raises `ValueError` for a device or a checkout that is not there."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("You passed --device cuda, but torch sees no GPU. Leave it out.")
    if args.device == "cuda" and args.processes > torch.cuda.device_count():
        raise ValueError(
            f"You passed --processes {args.processes} with {torch.cuda.device_count()} GPU. Pass at most one process "
            "a GPU."
        )
    if args.before is not None and not (Path(args.before) / "hf_pmgaft").is_dir():
        raise ValueError(
            f"You passed --before {args.before}, which holds no hf_pmgaft. Pass the folder of a checkout."
        )


def find_radii(args: argparse.Namespace, case: dict[str, Any]) -> dict[float, float]:
    """The radius of each level of robustness."""
    answers, _ = run_requests(args, case, [{"way": RADIUS, "level": level} for level in args.robust])
    return {level: eps for level, (eps,) in zip(args.robust, answers, strict=True)}


def measure_ways(
    args: argparse.Namespace, case: dict[str, Any], radii: dict[float, float], checkouts: dict[str, str | None]
) -> dict[tuple[str, float], dict[str, list[Result]]]:
    """Results by attack and level, and by way: one of each repeat. Ways take turns."""
    kinds = list(product(args.attacks, radii))
    ways_of = {attack: WAYS[attack][:1] if args.only_ours else WAYS[attack] for attack in args.attacks}
    requests = {
        BEFORE: [{"way": "ours", "attack": attack, "eps": radii[level]} for attack, level in kinds],
        "ours": [
            {"way": way, "attack": attack, "eps": radii[level]} for attack, level in kinds for way in ways_of[attack]
        ],
    }
    measured: dict[tuple[str, float], dict[str, list[Result]]] = {kind: {} for kind in kinds}
    for _ in range(args.repeats):
        for name, checkout in checkouts.items():
            answers, _ = run_requests(args, case, requests[name], checkout)
            ways = [kind for kind in kinds for _ in (ways_of[kind[0]] if name == "ours" else [BEFORE])]
            for kind, request, (result,) in zip(ways, requests[name], answers, strict=True):
                way = BEFORE if name == BEFORE else request["way"]
                measured[kind].setdefault(way, []).append(result)
    return measured


def measure_processes(
    args: argparse.Namespace,
    case: dict[str, Any],
    radii: dict[float, float],
    checkouts: dict[str, str | None],
    measured: dict[tuple[str, float], dict[str, list[Result]]],
) -> dict[tuple[str, float], dict[str, list[Result]]]:
    """Results of several processes, by attack and level, and by version of the package: one of each process."""
    shared: dict[tuple[str, float], dict[str, list[Result]]] = {}
    for attack, level in product(args.attacks, radii):
        request = {"way": "ours", "attack": attack, "eps": radii[level]}
        order = None
        if args.robust_first:
            verdicts = measured[attack, level]["ours"][0]["verdicts"]
            order = sorted(range(len(verdicts)), key=lambda row: -verdicts[row])
        for name, checkout in checkouts.items():
            answers, _ = run_requests(args, {**case, "order": order}, [request], checkout, args.processes)
            shared.setdefault((attack, level), {})[name] = answers[0]
    return shared


def measure_sizes(
    args: argparse.Namespace, case: dict[str, Any], checkouts: dict[str, str | None]
) -> list[dict[str, Any]]:
    """What sets of several sizes take, of all groups of emoji, at the radii of a smaller set of them."""
    if not args.sizes:
        return []
    radii = find_radii(args, {**case, "group": "all"})
    kinds = [(attack, level) for attack, level in product(args.attacks, radii) if attack != "standard"]
    requests = [{"way": "ours", "attack": attack, "eps": radii[level]} for attack, level in kinds]

    sizes = []
    for size, (name, checkout) in product(args.sizes, checkouts.items()):
        answers, is_repeated = run_requests(args, {**case, "group": "all", "images": size}, requests, checkout)
        for (attack, level), (result,) in zip(kinds, answers, strict=True):
            entry = {"size": size, "is_repeated": is_repeated, "attack": attack, "level": level, "way": name}
            sizes.append({**entry, "result": result})
    return sizes


# ---- Tables ----


def rows_of_ways(measured: dict[tuple[str, float], dict[str, list[Result]]], batch_size: int) -> list[list[str]]:
    """A row for each attack, level and way. A batch's fill is told while something waited for a place, and of all
    passes."""
    rows = [["attack", "stand", "way", "images/s", "times ours", "passes an image", "fill, waiting", "fill", "differ"]]
    for (attack, level), ways in measured.items():
        ours = ways["ours"][0]
        for way, results in ways.items():
            first = results[0]
            if "missing" in first or "missing" in ours:
                rows.append([attack, f"{level:.0%}", way, first.get("missing", "-"), "", "", "", "", ""])
                continue
            count = len(first["verdicts"])
            seconds = median(results)
            fill = first["images"] / max(1, first["passes"] * batch_size)
            differ = sum(a != b for a, b in zip(first["verdicts"], ours["verdicts"], strict=True))
            rows.append(
                [
                    attack,
                    f"{sum(first['verdicts']) / count:.1%}",
                    way,
                    f"{count / seconds:.2f}",
                    f"{seconds / median(ways['ours']):.2f}",
                    f"{first['images'] / count:.1f}",
                    waiting_fill(first, batch_size),
                    f"{fill:.1%}",
                    str(differ),
                ]
            )
    return rows


def rows_of_processes(
    measured: dict[tuple[str, float], dict[str, list[Result]]],
    shared: dict[tuple[str, float], dict[str, list[Result]]],
    processes: int,
) -> list[list[str]]:
    """A row for each attack, level and version: what several processes save, and how evenly they share the work."""
    rows = [["attack", "stand", "version", "one, s", f"{processes}, s", "times as fast", "slowest / mean"]]
    for (attack, level), versions in shared.items():
        for version, results in versions.items():
            alone = measured[attack, level][version]
            if any("missing" in result for result in [*results, *alone]):
                continue
            together = max(result["seconds"] for result in results)
            busy = [result["busy"] for result in results]
            rows.append(
                [
                    attack,
                    f"{level:.0%}",
                    version,
                    f"{median(alone):.2f}",
                    f"{together:.2f}",
                    f"{median(alone) / together:.2f}",
                    f"{max(busy) / statistics.fmean(busy):.2f}",
                ]
            )
    return rows


def rows_of_sizes(sizes: Sequence[dict[str, Any]], batch_size: int) -> list[list[str]]:
    """A row for each size, attack, level and version: passes beside what they would be in full batches."""
    rows = [["images", "attack", "stand", "version", "passes", "image passes / batch", "fill, waiting", "fill"]]
    for entry in sizes:
        result = entry["result"]
        name = f"{entry['size']}{', repeated' if entry['is_repeated'] else ''}"
        if "missing" in result:
            rows.append([name, entry["attack"], f"{entry['level']:.0%}", entry["way"], result["missing"], "", "", ""])
            continue
        full = result["images"] / batch_size
        rows.append(
            [
                name,
                entry["attack"],
                f"{sum(result['verdicts']) / len(result['verdicts']):.1%}",
                entry["way"],
                str(result["passes"]),
                f"{full:.0f}",
                waiting_fill(result, batch_size),
                f"{full / result['passes']:.1%}",
            ]
        )
    return rows


def median(results: Sequence[Result]) -> float:
    """The median of the repeats' seconds."""
    return statistics.median(result["seconds"] for result in results)


def waiting_fill(result: Result, batch_size: int) -> str:
    """How full batches were while something waited for a place, where that is told."""
    if not result["waiting_passes"]:
        return "-"
    return f"{result['waiting_images'] / (result['waiting_passes'] * batch_size):.1%}"


def as_json(case: dict[str, Any]) -> dict[str, Any]:
    """The figures of a case under keys that JSON has."""
    named = {
        key: [{"attack": attack, "level": level, **ways} for (attack, level), ways in case[key].items()]
        for key in ("ways", "processes")
    }
    return {**case, **named}
