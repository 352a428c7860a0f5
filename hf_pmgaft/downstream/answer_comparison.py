"""Two reports on what vision-language models write, image by image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ..evaluation.comparison import differing_keys
from ..evaluation.intervals import PairedDifference, paired_difference
from ..evaluation.outcomes import paired
from ..evaluation.tables import Rounded, Rows, points, span_of_points
from .scores import POOLED

Report = Mapping[str, Any]


@dataclass
class AnswerComparison:
    """Paired differences of two reports of `pmgaft attack-vlm`.

    Attributes:
        towers (`dict[str, dict[str, dict[str, PairedDifference]]]`): By tower, task and `"clean"` or radius, by how
            much the figure of the second is higher; of a targeted attack, the attacker's success.
    """

    towers: dict[str, dict[str, dict[str, PairedDifference]]]

    def rows(self) -> Rows:
        """A row per tower, task and radius: difference x 100, 95 % interval, images gained and lost, p."""
        rows = [["tower", "task", "radius", "difference", "95 %", "gained / lost", "p"]]
        for tower, tasks in self.towers.items():
            for task, pairs in tasks.items():
                for radius, pair in pairs.items():
                    difference = [points(pair.difference), span_of_points(*pair.interval)]
                    p_value = Rounded(f"{pair.p_value:.2g}", pair.p_value)
                    rows.append([tower, task, radius, *difference, f"{pair.gained} / {pair.lost}", p_value])
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return asdict(self)


def load_answer_report(file: str | PathLike) -> dict[str, Any] | None:
    """Reads a report of `pmgaft attack-vlm`; nothing of a file that is none, such as one of `pmgaft evaluate`."""
    try:
        report = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and {"protocol", "towers"} <= set(report) else None


def compare_answers(first: Report, second: Report, ignore: Sequence[str] = ()) -> AnswerComparison:
    """Compares two reports of one protocol: by McNemar's test where scores are 0 or 1, else by the paired bootstrap.

    Towers of one name are compared; or, if each report has one beside the model's own, these. Of two reports that have
    the model's own tower alone, the models are compared.

    Args:
        first, second (`dict`): Reports as `pmgaft attack-vlm` writes them.
        ignore (`list[str]`): Keys of the protocol that may differ, such as `versions.torch` or `device`.

    Raises:
        ValueError: if their protocols differ, naming the keys, or no towers belong together.

    Example:
        >>> cell = {"vqa_accuracy": 0.5, "worst_scores": [1.0, 0.0]}
        >>> report = {"protocol": {"seed": 0}, "towers": {"own tower": {"vqa": {"clean": cell}}}}
        >>> compare_answers(report, report).towers["own tower"]["vqa"]["clean"].difference
        0.0
    """
    differing = differing_keys(first["protocol"], second["protocol"], ignore)
    if differing:
        raise ValueError(
            f"The reports follow different protocols, so that their figures cannot be compared; they differ in "
            f"{', '.join(differing)}. Attack both models in the same way, or name keys that may differ."
        )
    return AnswerComparison(
        {
            name: _differences(first["towers"][one], second["towers"][other])
            for name, one, other in _pairs_of_towers(list(first["towers"]), list(second["towers"]))
        }
    )


def _pairs_of_towers(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str, str]]:
    """What a pair is called, and its tower in either report."""
    own = first[0]  # which every report begins with
    others = [name for name in first if name not in second], [name for name in second if name not in first]
    pairs = [(name, name, name) for name in first if name in second]
    if len(others[0]) == len(others[1]) == 1:
        (one,), (other,) = others
        pairs.append((f"{other} minus {one}", one, other))
    elif others[0] or others[1]:
        raise ValueError(
            f"The reports have different towers, {others[0]} and {others[1]} beside {own}, and none says which belong "
            "together. Name them alike, or attack one tower in each report."
        )
    return pairs


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, dict[str, PairedDifference]]:
    return {
        task: {radius: _difference(cell, second[task][radius]) for radius, cell in cells.items()}
        for task, cells in first.items()
    }


def _difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> PairedDifference:
    """Of one figure, image by image."""
    if "counts" in first:
        return paired(POOLED, first["counts"], second["counts"])

    ours, theirs = first["worst_scores"], second["worst_scores"]
    if "success" in first:  # the attacker's, which is what is missing to a score of 1
        ours = [1 - score for score in ours]
        theirs = [1 - score for score in theirs]
    if {*ours, *theirs} <= {0, 1}:
        return paired_difference([int(score) for score in ours], [int(score) for score in theirs])
    return paired(POOLED, [[score, 1] for score in ours], [[score, 1] for score in theirs])
