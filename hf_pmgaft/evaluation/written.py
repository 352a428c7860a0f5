"""What becomes of words on pictures beside verdicts: who reads them, and how much of an image they cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .tables import Rows, percent

# By typographic attack, of each image that it wrote on: 1 if it is taken for the class whose name stands there, or in
# whose place random letters do, else 0; and the share of its pixels that the text covers.
Written = Mapping[str, Sequence[Sequence[float]]]


class WithWords(Protocol):
    """What [`written_rows`] reads of a row of a report."""

    attacks: Mapping[str, float]
    written: Mapping[str, Mapping[str, float]] | None


def written_key(attack: str) -> str:
    """Under which name a verdict file has what a typographic attack wrote.

    Example:
        >>> written_key("typographic word 20%")
        'typographic word 20% written'
    """
    return f"{attack} written"


def written_figures(written: Written | None) -> dict[str, dict[str, float]] | None:
    """Sums up what was written on the images of a set; nothing if nothing was.

    Example:
        >>> written_figures({"typographic word 20%": [[1, 0.25], [0, 0.15]]})
        {'typographic word 20%': {'images': 2, 'read': 0.5, 'covered': 0.2}}
    """
    if not written:
        return None
    figures = {}
    for name, images in written.items():
        count = len(images)
        read = sum(is_read for is_read, _ in images) / count if count else 0.0
        covered = sum(share for _, share in images) / count if count else 0.0
        figures[name] = {"images": count, "read": read, "covered": round(covered, 6)}
    return figures


def written_rows(sets: Sequence[WithWords]) -> Rows:
    """A row per typographic attack: what stands, and of the images that it wrote on the share that is taken for the
    class that is written there, and the area that the text covers. Means over sets; no rows if nothing was written.

    Example:
        >>> from hf_pmgaft.evaluation.report import SetResult
        >>> name = "typographic word 20%"
        >>> food = SetResult("food", 10, 4, 0.5, 0.25, {name: 0.25})
        >>> food.written = {name: {"images": 2, "read": 0.5, "covered": 0.2}}
        >>> written_rows([food])[1]
        ['typographic word 20%', '1', '2', '25.0', '50.0', '20.0']
    """
    names = dict.fromkeys(name for result in sets for name in result.written or ())
    if not names:
        return []

    rows = [["written on images", "sets", "images", "standing", "taken for it", "area covered"]]
    for name in names:
        results = [result for result in sets if name in (result.written or ())]
        figures: list[Mapping[str, Any]] = [result.written[name] for result in results if result.written]
        row = [name, str(len(results)), str(sum(each["images"] for each in figures))]
        columns = [[result.attacks[name] for result in results]]
        columns += [[each[key] for each in figures] for key in ("read", "covered")]
        rows.append(row + [percent(sum(values) / len(values)) for values in columns])
    return rows
