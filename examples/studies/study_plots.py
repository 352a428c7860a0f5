"""Pictures of the studies: methods as points or bars, with the spread over seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hf_pmgaft.plots.figures import draw_bars, draw_point, new_figure, open_frame, save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By condition the mean in % and its spread, of each method.
Groups = Mapping[str, Mapping[str, tuple[float, float]]]


def scatter_with_spread(
    points: Mapping[str, tuple[float, float, float, float]], file: str | os.PathLike, x_label: str, y_label: str
) -> Figure:
    """A named point per entry, `(x, y, spread of x, spread of y)`, with whiskers as long as the spreads."""
    figure, ((axis,),) = new_figure(1, 1, (8, 5.5))
    for number, (name, (x, y, x_spread, y_spread)) in enumerate(points.items()):
        draw_point(axis, x, y, x_spread, y_spread, number, name)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    open_frame(axis)
    figure.legend(fontsize=8, loc="outside right upper")
    save_png(figure, file)
    return figure


def bars_with_spread(panels: Mapping[str, Groups], file: str | os.PathLike, columns: int = 3) -> Figure:
    """A panel per figure, in it a group of bars per method, with whiskers as long as the spreads.

    Args:
        panels (`dict`): By title, then by condition, such as `"clean"` and a radius, then by method: a mean in % and
            its spread. A panel may lack conditions, but no method.
        file (`str`): Where the picture goes.
        columns (`int`): Panels beside each other.
    """
    conditions = list(dict.fromkeys(name for groups in panels.values() for name in groups))
    methods = list(next(iter(next(iter(panels.values())).values())))
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)

    figure, grid = new_figure(rows, columns, (columns * (0.8 + 0.6 * len(methods)), 0.4 + 3.3 * rows), sharey=True)
    for axis in grid.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, groups) in zip(grid.flat, panels.items(), strict=False):
        width = 0.85 / len(groups)
        for number, (condition, of_methods) in enumerate(groups.items()):
            means, spreads = zip(*(of_methods[name] for name in methods), strict=True)
            places = np.arange(len(methods)) + (number - (len(groups) - 1) / 2) * width
            draw_bars(axis, places, means, width, spreads, conditions.index(condition), condition)
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(methods)), methods, rotation=35, ha="right", fontsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in grid[:, 0]:
        axis.set(ylim=(0, 108), yticks=range(0, 101, 20), ylabel="%")

    # One legend for all panels, each condition once
    handles = {label: bar for axis in grid.flat for bar, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    save_png(figure, file)
    return figure
