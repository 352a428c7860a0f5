"""Accuracy against the number of shots, a line per method."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .figures import line_style, new_figure, open_frame, save_png

Lines = Mapping[str, Mapping[str, tuple[float, float]]]


def shots_curves(panels: Mapping[str, Lines], file: str | os.PathLike) -> None:
    """Draws a panel per figure, such as clean and robust accuracy, with a line per method over the shots.

    Args:
        panels (`dict`): By the panel's title, then by method and shots (`"1"`, `"4"`, `"all"`) the mean in percent
            and half its whisker. A method without shots, `""`, is a line from side to side.
        file (`str` or `PathLike`): The PNG.

    Example:
        >>> lines = {"tecoa": {"1": (40.0, 2.0), "4": (48.0, 1.0)}, "none": {"": (30.0, 0.0)}}
        >>> shots_curves({"robust": lines}, "curves.png")
    """
    figure, axes = new_figure(1, len(panels), (4.4 * len(panels), 3.6))
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        places = places_of(lines)
        for number, (method, points) in enumerate(lines.items()):
            style = line_style(number)
            if "" in points:
                axis.axhline(points[""][0], label=method, color="0.45", linestyle="--", linewidth=1)
                continue
            x = [places[shots] for shots in points]
            means = [mean for mean, _ in points.values()]
            halves = [half for _, half in points.values()]
            axis.errorbar(x, means, yerr=halves, label=method, **style, markersize=5, linewidth=1.4, capsize=2)
        axis.set_xticks(list(places.values()), list(places))
        axis.set(xlabel="shots", ylabel=f"{title} accuracy in %")
        open_frame(axis)
    axes[0][0].legend(fontsize=7, frameon=False)
    save_png(figure, file)


def places_of(lines: Lines) -> dict[str, int]:
    """Where numbers of shots stand: in their order, with `all` last."""
    shots = {each for points in lines.values() for each in points if each}
    ordered = sorted(shots, key=lambda each: (not each.isdecimal(), int(each) if each.isdecimal() else 0))
    return {each: place for place, each in enumerate(ordered)}
