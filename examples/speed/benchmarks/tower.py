"""What an attack on the tower of the embedded LLaVA alone costs beside one on its answers, and what it finds."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from hf_pmgaft import attack_answers, load_vlm
from hf_pmgaft.cli import attack_vlm
from hf_pmgaft.cli.attack_vlm_tasks import load_tasks
from hf_pmgaft.downstream.answer_attacks import AskedImages
from hf_pmgaft.downstream.encoder_attack import DISTANCES, attack_encoder
from hf_pmgaft.evaluation.tables import render

from .common import EMOJI, write

ANSWERS = "answers"
Attack = Callable[[str], torch.Tensor]


def run(args: argparse.Namespace) -> None:
    """Prints, for each radius, the VQA accuracy that each attack leaves, and its CPU time over that on answers."""
    asked = ask(args.images)
    attacks = attacks_on(asked, args.num_steps)
    clean = accuracy(asked, torch.stack([asked.image(place) for place in range(len(asked.task.questions))]))
    print(f"VQA accuracy of {len(asked.task.questions)} questions, clean: {clean:.1%}")

    rows, figures = [["radius", "attack", "VQA accuracy", "CPU s a question", "of that on answers"]], {}
    for eps in args.eps:
        measured: dict[str, list[float]] = {name: [] for name in attacks}
        left: dict[str, float] = {}
        for _ in range(args.repeats):
            for name, attack in attacks.items():
                start = time.process_time()
                images = attack(eps)
                measured[name].append(time.process_time() - start)
                left[name] = accuracy(asked, images)
        figures[eps] = {name: {"vqa_accuracy": left[name], "cpu_seconds": measured[name]} for name in attacks}

        seconds = {name: statistics.median(times) for name, times in measured.items()}
        for name in attacks:
            each, share = seconds[name] / len(asked.task.questions), seconds[name] / seconds[ANSWERS]
            rows.append([eps, name, f"{left[name]:.1%}", f"{each:.3f}", f"{share:.2f}"])
    print(render(rows))
    write(args, clean=clean, radii=figures)


def ask(images: int) -> AskedImages:
    """What some emoji of the unseen style are called, asked of the LLaVA with its own tower."""
    model = load_vlm(str(EMOJI / "llava"))
    options = attack_vlm.parse(["--tasks", "vqa", "--num_images", str(images)])
    rows, pixels, (task, _) = load_tasks(options, model)
    return AskedImages(model, task, pixels, rows, batch_size=len(task.questions))


def attacks_on(asked: AskedImages, num_steps: int) -> dict[str, Attack]:
    """PGD on the answers and, by each distance, on the tower; all start from the same noise."""
    places = range(len(asked.task.questions))
    images, options = asked.stack(places), {"seeds": asked.seeds(0, places), "num_steps": num_steps}

    def on_answers(eps: str) -> torch.Tensor:
        return attack_answers(asked.model, images, asked.task.questions, asked.task.answers, eps=eps, **options)

    def on_tower(distance: str) -> Attack:
        return lambda eps: attack_encoder(asked.model, images, eps=eps, distance=distance, **options)

    return {ANSWERS: on_answers, **{f"tower, {distance}": on_tower(distance) for distance in DISTANCES}}


def accuracy(asked: AskedImages, images: torch.Tensor) -> float:
    """VQA accuracy of what is written about images `[B,3,H,W]`."""
    texts = asked.write(images, range(len(images)))
    return statistics.fmean(asked.task.score.of(text, place) for place, text in enumerate(texts))
