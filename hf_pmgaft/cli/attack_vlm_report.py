"""The protocol of `pmgaft attack-vlm`, its table and its report."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..attacks import parse_radius
from ..embedded import emoji_folder
from ..evaluation.tables import render
from ..files import write_whole
from ..fingerprints import digest
from .attack_vlm_checks import OWN

if TYPE_CHECKING:  # what brings in transformers' models comes where it is used, so that --help is quick
    from ..downstream.answer_attacks import AnswerAttack
    from ..downstream.tasks import AnswerTask
    from ..downstream.vlm import VisionLanguageModel

EMBEDDED = "the embedded LLaVA"
INTERVALS = "Intervals are 95 %: Wilson's of a mean of scores from 0 to 1, else by the bootstrap over images."
MEAN = "pope, mean of categories"
Results = Mapping[str, Mapping[str, Any]]  # by tower and task


def describe(
    args: argparse.Namespace,
    model: VisionLanguageModel,
    rows: Sequence[int],
    images: Sequence[torch.Tensor],
    tasks: Sequence[AnswerTask],
    attack: AnswerAttack,
) -> dict[str, Any]:
    """All that the figures depend on but the weights."""
    from ..downstream.answer_evaluation import WORST_OF_RADII

    device = model.model.device
    return {
        "protocol": {"name": args.protocol, "changed": args.changed},
        "attack": attack.describe(),
        "eps": sorted(args.eps, key=parse_radius),
        "verdict": WORST_OF_RADII,
        "tasks": {task.name: _describe_task(model, task) for task in tasks},
        "images": {
            "set": args.eval_set or f"emoji, {args.split}",
            "rows": list(rows),
            **model.pixels.described(),
            "sizes": sorted({"x".join(map(str, image.shape[1:])) for image in images}),
            "pixels": digest([image.cpu().numpy().tobytes() for image in images]),
        },
        "seed": args.seed,
        "dtype": "float32",
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("hf_pmgaft", "torch", "transformers", "pillow")},
        },
    }


def _describe_task(model: VisionLanguageModel, task: AnswerTask) -> dict[str, Any]:
    if task.options is None:
        answered = f"greedy, at most {task.max_new_tokens} tokens"
    else:
        answered = "the option of the highest summed log-probability"
    return {
        **task.score.describe(),
        "answered": answered,
        "attacked": task.attacked,
        "questions": len(task.questions),
        "prompts": sorted({model.prompt(question) for question in task.questions})[:10],
        "asked": digest([json.dumps([task.questions, task.answers, task.image_places]).encode()]),
    }


def show(
    args: argparse.Namespace, protocol: Mapping[str, Any], tasks: Sequence[AnswerTask], results: Results
) -> dict[str, Any]:
    """Prints the table and what is to be known of it, and writes and returns the report."""
    protocol_hash = digest([json.dumps(protocol, sort_keys=True).encode()])
    report = {
        "protocol": protocol,
        "protocol_hash": protocol_hash,
        "model": args.model or EMBEDDED,
        "towers": results,
        "means": means(tasks, protocol["eps"], results),
    }
    print(render(table_rows(report, tasks), args.format))
    print(f"\n{in_words(protocol)}. Protocol {protocol_hash}.")
    for line in notes(tasks, results):
        print(line)

    if args.output_file:
        write_whole(args.output_file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def without_places(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report that names its model as others may read it: a folder of this machine by its last part."""
    model = report["model"]
    return {**report, "model": Path(model).resolve().name if Path(model).exists() else model}


def card_report(report: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """The part of a report that is about one tower and the model's own, without places of a machine."""
    both = [name for name in report["towers"] if name in (OWN, tower)]
    return {
        **without_places(report),
        "towers": {name: report["towers"][name] for name in both},
        "means": {name: mean for name, mean in report["means"].items() if name in both},
    }


def card_figures(report: Mapping[str, Any], tasks: Sequence[AnswerTask]) -> str:
    """What the card of a tower says of a report about it."""
    rows = [row[1:] for row in table_rows(report, tasks)]
    attack = report["protocol"]["attack"]
    return "\n".join(
        [
            f"In the vision-language model `{report['model']}`, protocol `{report['protocol_hash']}`: figures through "
            f"its own tower and through this one, attacked by {attack['attack']} ({attack['num_steps']} steps) in "
            f"L-inf at each radius, {len(report['protocol']['images']['rows'])} images. They are "
            f"{report['protocol']['verdict']}.",
            "",
            render(rows, "markdown"),
            "",
            INTERVALS,
        ]
    )


def in_words(protocol: Mapping[str, Any]) -> str:
    """Attack, images and verdict of a protocol."""
    attack, of_paper = protocol["attack"], protocol["protocol"]
    titles = {"ensemble": "Ensemble of APGD-{}", "encoder": "PGD-{} on the tower alone", "pgd": "PGD-{}"}
    title = titles[attack["attack"]].format(attack["num_steps"])
    named = f"{of_paper['name']}{_changed(of_paper['changed'])}: " if of_paper["name"] else ""
    return f"{named}{title} in L-inf, {len(protocol['images']['rows'])} images; {protocol['verdict']}"


def _changed(names: Sequence[str]) -> str:
    return f" with another {', '.join(names)}" if names else ""


def notes(tasks: Sequence[AnswerTask], results: Results) -> list[str]:
    """What the figures leave out: how intervals were made, and models of which they say little."""
    lines = [INTERVALS]
    if any(not task.attacked for task in tasks):
        names = ", ".join(task.name for task in tasks if not task.attacked)
        lines.append(f"Clean images alone: {names}.")
    for task in tasks:
        for name, of_tasks in results.items():
            clean = of_tasks[task.name]["clean"]
            if task.is_targeted and clean["success"]:
                share = f"{clean['success']:.0%}"
                lines.append(f"WARNING: {name} writes {task.name} unprompted about {share} of the clean images.")
            if not any(text.strip() for text in clean["texts"]):
                lines.append(
                    f"WARNING: {name} answers nothing to {task.name}, whose figures say nothing of robustness. Check "
                    "the prompt and the tower."
                )
    return lines


def means(tasks: Sequence[AnswerTask], radii: Sequence[str], results: Results) -> dict[str, dict[str, float]]:
    """By tower, the mean F1 over the categories of POPE, clean and at each radius; empty for fewer than two."""
    of_pope = [task for task in tasks if task.score.figure == "f1"]
    if len(of_pope) < 2:
        return {}
    columns = ["clean", *(radii if of_pope[0].attacked else [])]
    return {
        name: {column: sum(by_task[task.name][column]["f1"] for task in of_pope) / len(of_pope) for column in columns}
        for name, by_task in results.items()
    }


def table_rows(report: Mapping[str, Any], tasks: Sequence[AnswerTask]) -> list[list[str]]:
    """A row for each task and tower, with the figure and its interval clean and at each radius."""
    columns = ["clean", *report["protocol"]["eps"]]
    model = Path(report["model"]).name
    rows = [["model", "tower", "task", "figure x 100", *columns]]
    for task in tasks:
        for name, of_tasks in report["towers"].items():
            cells = [_cell(task, of_tasks[task.name].get(column)) for column in columns]
            rows.append([model, name, task.name, task.score.title, *cells])
    for name, mean in report["means"].items():
        cells = [f"{100 * mean[column]:.1f}" if column in mean else "" for column in columns]
        rows.append([model, name, MEAN, "F1", *cells])
    return rows


def _cell(task: AnswerTask, result: Mapping[str, Any] | None) -> str:
    if result is None:
        return ""
    low, high = result["interval_95"]
    return f"{100 * result[task.score.figure]:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def default_model() -> str:
    """The folder of the embedded LLaVA."""
    return str(emoji_folder() / "llava")
