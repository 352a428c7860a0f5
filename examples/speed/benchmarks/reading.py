"""Whether the images of an evaluation are read as fast as they are judged."""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image

from hf_pmgaft import ZeroShotClassifier, ZeroShotDataset
from hf_pmgaft.attacks import pgd
from hf_pmgaft.evaluation.reader import Reader
from hf_pmgaft.evaluation.tables import render

from .common import BATCH, make_model, write

SIZE = (500, 375)  # width and height of most photographs of ImageNet
NUM_STEPS = 50  # of the attack whose rate stands beside


def run(args: argparse.Namespace) -> None:
    """Prints how many photographs a second each number of workers reads, beside how many a model judges."""
    measured: dict[int, list[dict[str, float]]] = {workers: [] for workers in args.workers}
    with tempfile.TemporaryDirectory() as folder:
        data = photographs(Path(folder), args)
        for _ in range(args.repeats):
            for workers in args.workers:
                measured[workers].append(read(data, workers, args.batch_size))
    medians = {workers: medians_of(runs) for workers, runs in measured.items()}

    base = 1 if 1 in medians else args.workers[0]
    rows = [["workers", "images/s", f"times {base}", "CPU ms an image", "main process at work"]]
    for workers, of_run in medians.items():
        rate = of_run["images_per_second"]
        times = rate / medians[base]["images_per_second"]
        cpu = 1000 * of_run["cpu_seconds_an_image"]
        rows.append([str(workers), f"{rate:.0f}", f"{times:.2f}", f"{cpu:.2f}", f"{of_run['main_process']:.1%}"])
    print(render(rows))

    judged = images_judged(args)
    print("Judged by the model: " + ", ".join(f"{rate:.2g} images/s in {name}" for name, rate in judged.items()) + ".")
    write(args, reading=measured, judged_per_second=judged)


def read(data: ZeroShotDataset, workers: int, batch_size: int) -> dict[str, float]:
    """Reads all photographs but a first batch, at which the workers start, from the files to batches."""
    rows = range(len(data))
    lots = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with Reader(data, workers) as reader:
        for _ in reader.stream([row] for row in lots[0]):
            pass

        start, used = time.perf_counter(), time.process_time()
        for _ in reader.stream(lots[1:]):
            pass
        seconds, here = time.perf_counter() - start, time.process_time() - used

        before = time_of_ended_processes()
    elsewhere = time_of_ended_processes() - before
    count = len(rows) - len(lots[0])
    return {
        "images_per_second": count / seconds,
        "cpu_seconds_an_image": here / count + elsewhere / len(rows),
        "main_process": here / seconds,
    }


def time_of_ended_processes() -> float:
    """CPU seconds that processes have taken which this one started, and which have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def medians_of(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over several runs."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def images_judged(args: argparse.Namespace) -> dict[str, float]:
    """Images a second that a model looks at without an attack, and attacks to the last step of PGD."""
    model, processor = make_model(args.model)
    embeds = torch.nn.functional.normalize(torch.randn(1000, model.config.projection_dim), dim=-1)
    classifier = ZeroShotClassifier.from_model(model.eval().requires_grad_(False), processor, embeds)
    edge = model.config.vision_config.image_size
    images = torch.rand(BATCH["ViT-B/32"], 3, edge, edge)
    labels = torch.zeros(len(images), dtype=torch.long)

    with torch.no_grad():
        clean = _seconds(lambda: classifier(images), args.repeats)
    two_steps = _seconds(lambda: pgd(classifier, images, labels, eps=1 / 255, num_steps=2), args.repeats)
    return {"a clean pass": len(images) / clean, f"PGD-{NUM_STEPS}": len(images) / (two_steps / 2 * NUM_STEPS)}


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """The median time of a call, after a first one."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def photographs(folder: Path, args: argparse.Namespace) -> ZeroShotDataset:
    """A set of JPEG files of as many pixels and about as many bytes as photographs have."""
    _, processor = make_model(args.model)
    draw = np.random.default_rng(0)
    files = []
    for number in range(args.images):
        files.append(str(folder / f"{number}.jpg"))
        photograph(draw).save(files[-1], "JPEG", quality=90)

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": files, "label": [number % 2 for number in range(args.images)]}
    return ZeroShotDataset(datasets.Dataset.from_dict(rows, features), processor, name="photographs")


def photograph(draw: np.random.Generator) -> Image.Image:
    """Octaves of noise, each twice as fine as the one before and weaker, and the noise of a sensor."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 128.0)
    for octave in range(7):
        cells = draw.integers(0, 256, (3 * 2**octave, 4 * 2**octave, 3), dtype=np.uint8)
        shapes = Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC)
        pixels += (np.asarray(shapes) - 128.0) * 0.6 * 0.7**octave
    pixels += draw.normal(0, 6, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
