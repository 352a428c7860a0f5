"""Whether decoding, resizing and collating keep up with the training step."""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from typing import Any

import datasets
import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from hf_pmgaft.data import Collator, training_examples
from hf_pmgaft.evaluation.tables import render

from .common import BATCH, make_model, write
from .steps import Ours, emoji_images

SETS = {"embedded default": "emoji, parquet", "ViT-B/32": "photographs, JPEG"}


def run(args: argparse.Namespace) -> None:
    """Prints how many images per second each number of workers reads, beside what a step of PMG-AFT needs."""
    rows = [["set", "workers", "images/s", "a step needs", "times the need"]]
    figures = []
    for model in args.models:
        images = emoji_images() if model == "embedded default" else jpegs(args.images)
        needed = images_needed(model, args)
        for workers, kept in [*((workers, False) for workers in args.workers), (0, True)]:
            rates = [throughput(images, model, workers, kept, args.epochs) for _ in range(args.repeats)]
            rate = statistics.median(rates)
            name = f"{workers}, images kept" if kept else str(workers)
            figures.append({"set": SETS[model], "workers": name, "images_per_second": rates, "needed": needed})
            rows.append([SETS[model], name, f"{rate:.0f}", f"{needed:.0f}", f"{rate / needed:.1f}"])
    print(render(rows))
    write(args, sets=figures)


def images_needed(model: str, args: argparse.Namespace) -> float:
    """Images per second that a step of PMG-AFT on a whole vision tower takes, two attack steps, 25 prompts."""
    case = {"model": model, "method": "pmg_aft", "tuning": "full", "prompts": 25, "num_steps": 2}
    case["batch_size"] = args.batch_size or BATCH[model]
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(case, folder)
        seconds = []
        for _ in range(args.repeats + 1):
            start = time.perf_counter()
            ours.step()
            seconds.append(time.perf_counter() - start)
    return case["batch_size"] / statistics.median(seconds[1:])


def throughput(images: datasets.Dataset, model: str, workers: int, kept: bool, epochs: int) -> float:
    """Images per second from the files to the batch, after a first epoch, which starts workers and keeps images."""
    _, processor = make_model(model)
    examples = training_examples(images, processor)
    examples = examples.cached(2**30) if kept else examples
    loader = DataLoader(
        examples,
        BATCH[model],
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=Collator(processor, len(examples.class_names)),
    )
    for _ in loader:
        pass

    start = time.perf_counter()
    for _ in range(epochs):
        for _ in loader:
            pass
    return epochs * len(examples) / (time.perf_counter() - start)


def jpegs(count: int) -> datasets.Dataset:
    """Pictures of 224 pixels at their shortest edge, as smooth as photographs are."""
    draw = np.random.default_rng(0)

    def picture() -> bytes:
        coarse = Image.fromarray(draw.integers(0, 256, (14, 19, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((304, 224), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        return file.getvalue()

    rows: dict[str, list[Any]] = {"image": [{"bytes": picture(), "path": None} for _ in range(count)]}
    rows["label"] = [i % 25 for i in range(count)]
    names = datasets.ClassLabel(names=[f"thing {i}" for i in range(25)])
    return datasets.Dataset.from_dict(rows, datasets.Features({"image": datasets.Image(), "label": names}))
