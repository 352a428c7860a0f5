"""Matplotlib figures: paper, colours, and what several pictures write into their axes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F

from ..files import writing_into

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR_COLOURS = ("#a9b8c9", "#2463a6", "#d9822b", "#4c9a5a", "#8a5fb0")
LINE_COLOURS = ("#2463a6", "#d9822b", "#4c9a5a", "#8a5fb0", "#b5455c", "#3aa6a6", "#8c6d31", "#56697d")
MARKERS = "osD^v<>"  # one fewer than colours, so that both come together again only after 56 lines
RIGHT, WRONG = "#1a7f37", "#b42318"
HEAT = "inferno"
Place = str | os.PathLike | BinaryIO  # where a picture goes


def new_figure(rows: int, columns: int, size: tuple[float, float], **ratios: Any) -> tuple[Figure, np.ndarray]:
    """A figure of some inches with its axes, `[rows, columns]`."""
    # No pyplot: it would keep the figure in a global list and choose a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **ratios)


def save_png(figure: Figure, file: Place) -> None:
    """Writes a figure as PNG, without the margin around it; the folder of a file is made if need be."""
    is_on_disk = isinstance(file, (str, os.PathLike))
    if is_on_disk:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    with writing_into(Path(file).parent) if is_on_disk else contextlib.nullcontext():
        figure.savefig(file, format="png", dpi=130, bbox_inches="tight")


# ---- Lines and bars ----


def line_style(number: int) -> dict[str, str]:
    """Colour and marker of a line or point."""
    return {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def draw_bars(
    axis: Axes, places: np.ndarray, heights: Any, width: float, whiskers: Any, colour: int, label: str
) -> None:
    """Bars with their heights above them and whiskers; the colour is a number."""
    bars = axis.bar(
        places,
        heights,
        width,
        yerr=whiskers,
        label=label,
        color=BAR_COLOURS[colour % len(BAR_COLOURS)],
        error_kw={"ecolor": "0.25", "elinewidth": 1},
    )
    axis.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)


def draw_point(axis: Axes, x: float, y: float, x_whiskers: Any, y_whiskers: Any, number: int, label: str) -> None:
    """A named point with whiskers in both directions."""
    style = line_style(number)
    axis.errorbar(
        x,
        y,
        xerr=x_whiskers,
        yerr=y_whiskers,
        fmt="none",
        ecolor=style["color"],
        elinewidth=1,
        capsize=2,
        alpha=0.7,
    )
    axis.plot(x, y, label=label, **style, linestyle="", markersize=8, markeredgecolor="white", zorder=3)


def open_frame(axis: Axes) -> None:
    """A grid, and no lines at the top and to the right."""
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


# ---- Images ----


def show_image(axis: Axes, image: torch.Tensor) -> None:
    """An image `[3,H,W]`, cut to [0,1]."""
    axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def show_heat(axis: Axes, image: torch.Tensor, heat: torch.Tensor) -> None:
    """The map `[h,w]`, scaled to its range and resized, over the image in grey."""
    low, high = heat.min(), heat.max()
    scaled = (heat - low) / (high - low).clamp_min(torch.finfo(heat.dtype).tiny)
    resized = F.interpolate(scaled[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    # White is shown as a light grey, through which bright and dark places of the map can be told.
    axis.imshow(image.clamp(0, 1).mean(0).numpy(), cmap="gray", vmin=0, vmax=1.4, interpolation="nearest")
    axis.imshow(resized.numpy(), cmap=HEAT, vmin=0, vmax=1, alpha=0.7, interpolation="bilinear")
    axis.set(xticks=[], yticks=[])


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """The correlation of two maps over their places.

    Example:
        >>> round(correlation(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])), 6)
        1.0
    """
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


def write_prediction(axis: Axes, line: int, prefix: str, predicted: str, is_right: bool) -> None:
    """A predicted class below an image, on a numbered line, with sign and colour for right or wrong."""
    axis.annotate(
        f"{'✓' if is_right else '✗'} {prefix}{shorten(predicted)}",
        xy=(0.5, 0),
        xycoords="axes fraction",
        xytext=(0, -10 - 12 * line),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8,
        family="DejaVu Sans",
        color=RIGHT if is_right else WRONG,
        parse_math=False,
    )


def shorten(name: str, length: int = 18) -> str:
    """A name that fits, with an ellipsis where it was cut.

    Example:
        >>> shorten("a name that is too long")
        'a name that is to…'
    """
    return name if len(name) <= length else f"{name[: length - 1]}…"
