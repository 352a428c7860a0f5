"""Pages of what vision-language models write under attack: of one report, and of two that are compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..evaluation.tables import Rows, percent, span
from ..files import write_whole
from ..plots import answer_curves
from .pictures import Picture, chart_of, picture_of_attack
from .rendering import render_page

if TYPE_CHECKING:
    from ..downstream.answer_comparison import AnswerComparison

Report = Mapping[str, Any]
# By tower, images `[2,N,3,H,W]` in [0,1], clean and attacked, and what is written about either, two lists of N.
Shown = Mapping[str, tuple[torch.Tensor, Sequence[Sequence[str]]]]
MOST_PICTURES = 24
CURVES = "Curves: the figure of each task against the radius of the attack"


def save_answer_page(
    report: Report, file: str | os.PathLike, how: str, notes: Sequence[str] = (), shown: Shown | None = None
) -> None:
    """Writes a report of `pmgaft attack-vlm` as one HTML file without links to anything outside.

    It has the first task in a sentence, a table for each task with intervals, curves, images with what is written
    about them, and the whole protocol. Every number of a table is a `<data>` with the exact value.

    Args:
        report (`dict`): As the command writes it.
        file (`str` or `PathLike`): Where the page goes, whole or not at all.
        how (`str`): Attack and images in words.
        notes (`list[str]`): What else is to be known of the figures.
        shown (`dict`, *optional*): By tower, images `[2,N,3,H,W]` in [0,1], clean and attacked, and two lists of N
            texts.

    Example:
        >>> cell = {"f1": 0.8, "interval_95": [0.7, 0.9]}
        >>> towers = {"own tower": {"pope": {"clean": cell, "4/255": {**cell, "f1": 0.2}}}}
        >>> protocol = {"tasks": {"pope": {"figure": "f1", "score": "F1"}}, "eps": ["4/255"]}
        >>> report = {"model": "tiny", "protocol": protocol, "protocol_hash": "0", "towers": towers}
        >>> save_answer_page(report, "page.html", "PGD-2 in L-inf, 2 images")
        >>> "80.0 without an attack and 20.0 at 4/255 through own tower" in open("page.html").read()
        True
    """
    page = render_page(
        "answers.html",
        title=f"What does {report['model']} write under attack?",
        summary=summary(report),
        report=report,
        measured=[*notes, f"{how}."],
        tables=tables(report),
        charts=[chart_of(CURVES, lambda place: answer_curves({report["model"]: report}, place))],
        examples=examples(shown or {}),
    )
    write_whole(file, page)


def save_answer_comparison_page(
    reports: Mapping[str, Report], comparison: AnswerComparison, file: str | os.PathLike, how: str
) -> None:
    """Writes two reports of `pmgaft attack-vlm` and their paired differences as one HTML file.

    Args:
        reports (`dict`): Two of one protocol, by name.
        comparison (`AnswerComparison`): What `compare_answers` gave of them, in this order.
        file (`str` or `PathLike`): Where the page goes, whole or not at all.
        how (`str`): Attack and images in words.

    Example:
        >>> from hf_pmgaft.downstream.answer_comparison import compare_answers
        >>> cell = {"f1": 0.8, "interval_95": [0.7, 0.9], "worst_scores": [1, 0], "counts": [[1, 2], [0, 1]]}
        >>> protocol = {"tasks": {"pope": {"figure": "f1", "score": "F1"}}}
        >>> report = {"protocol": protocol, "protocol_hash": "0", "towers": {"own tower": {"pope": {"clean": cell}}}}
        >>> comparison = compare_answers(report, report)
        >>> save_answer_comparison_page({"a": report, "b": report}, comparison, "page.html", "PGD-2, 2 images")
    """
    first, second = reports
    page = render_page(
        "answer_comparison.html",
        title=f"{first} and {second}",
        summary=f"What is written under attack: {second} minus {first}, paired by image, with 95 % intervals.",
        reports=reports,
        comparison=comparison,
        measured=[f"{how}."],
        tables={name: tables(report) for name, report in reports.items()},
        charts=[chart_of(CURVES, lambda place: answer_curves(reports, place))],
    )
    write_whole(file, page)


def summary(report: Report) -> str:
    """The first task of a report in a sentence or two."""
    task, described = next(iter(report["protocol"]["tasks"].items()))
    parts = []
    for tower, of_tasks in report["towers"].items():
        clean, *attacked = of_tasks[task].items()
        values = [f"{percent(clean[1][described['figure']])} without an attack"]
        values += [f"{percent(cell[described['figure']])} at {radius}" for radius, cell in attacked[-1:]]
        parts.append(f"{' and '.join(values)} through {tower}")
    end = "raise" if described["figure"] == "success" else "lower"
    stronger = f" A stronger attack can only {end} the figures under attack." if attacked else ""
    return f"In {task}, {described['score']} x 100 of {report['model']} is {'; '.join(parts)}.{stronger}"


def tables(report: Report) -> dict[str, Rows]:
    """A table for each task, with a row for each tower without an attack and at each radius."""
    found = {}
    for task, described in report["protocol"]["tasks"].items():
        rows: Rows = [["tower", "under", f"{described['score']} x 100", "95 %"]]
        for tower, of_tasks in report["towers"].items():
            for under, cell in of_tasks[task].items():
                title = "without an attack" if under == "clean" else under
                rows.append([tower, title, percent(cell[described["figure"]]), span(*cell["interval_95"])])
        found[task] = rows
    return found


def examples(shown: Shown) -> list[tuple[str, Picture, str, str]]:
    """Of each image that is shown: the tower, the picture, and what is written about it clean and attacked."""
    of_each = max(1, MOST_PICTURES // max(1, len(shown)))
    found = [
        (tower, picture_of_attack(clean, attacked, f"image {number}, through {tower}"), *texts)
        for tower, (images, of_tower) in shown.items()
        for number, (clean, attacked, *texts) in enumerate(zip(*images, *of_tower, strict=True), 1)
        if number <= of_each
    ]
    return found[:MOST_PICTURES]
