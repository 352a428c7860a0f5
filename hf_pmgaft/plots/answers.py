"""Pictures of what vision-language models write under attack: figures against the radius."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..attacks.ball import parse_radius
from .figures import Place, line_style, new_figure, open_frame, save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3


def answer_curves(reports: Mapping[str, Mapping[str, Any]], file: Place) -> Figure:
    """Each task's figure against the radius: a panel for each task, a line with its 95 % band for each tower.

    Args:
        reports (`dict`): By name, reports of `pmgaft attack-vlm` of one protocol.
        file (`str`): Where the picture goes.

    Example:
        >>> cell = {"f1": 0.8, "interval_95": [0.7, 0.9]}
        >>> towers = {"own tower": {"pope": {"clean": cell, "4/255": {**cell, "f1": 0.2}}}}
        >>> report = {"protocol": {"tasks": {"pope": {"figure": "f1", "score": "F1"}}}, "towers": towers}
        >>> figure = answer_curves({"LLaVA": report}, "answers.png")
        >>> figure.axes[0].get_title(), figure.axes[0].get_ylabel()
        ('pope', 'F1 x 100')
    """
    tasks = next(iter(reports.values()))["protocol"]["tasks"]
    rows, columns = -(-len(tasks) // COLUMNS), min(len(tasks), COLUMNS)
    picture, axes = new_figure(rows, columns, (4.2 * columns, 3.4 * rows + 0.6))
    for axis, (task, described) in zip(axes.flat, tasks.items(), strict=False):
        for number, (label, of_tasks) in enumerate(_lines(reports).items()):
            cells, style = of_tasks[task], line_style(number)
            radii = [0.0 if under == "clean" else 255 * parse_radius(under) for under in cells]
            values = [100 * cell[described["figure"]] for cell in cells.values()]
            low, high = zip(*([100 * end for end in cell["interval_95"]] for cell in cells.values()), strict=True)
            axis.plot(radii, values, label=label, **style, markersize=5)
            axis.fill_between(radii, low, high, alpha=0.15, linewidth=0, color=style["color"])
        axis.set(title=task, ylabel=f"{described['score']} x 100", ylim=(0, None), xticks=radii)
        axis.set_xticks(radii, [f"{radius:.3g}" for radius in radii])
        axis.set_xlabel("L∞ radius in 1/255 (0: clean)")
        open_frame(axis)
    for axis in axes.flat[len(tasks) :]:
        axis.remove()
    picture.legend(*axes.flat[0].get_legend_handles_labels(), ncols=2, loc="outside upper right", fontsize=9)
    save_png(picture, file)
    return picture


def _lines(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What each tower of each report came to, by how its line is called."""
    return {
        tower if len(reports) == 1 else f"{name}: {tower}": of_tasks
        for name, report in reports.items()
        for tower, of_tasks in report["towers"].items()
    }
