"""Results as parts of a page: a table that is sorted by a click on a column, and points with their names.

A part is HTML that the documentation takes in as it stands, or that a browser opens. It links to nothing, and without
JavaScript it is a table like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from hf_pmgaft.evaluation.tables import Rounded, Rows, render
from hf_pmgaft.plots.figures import LINE_COLOURS

WIDTH, HEIGHT, LEFT, BELOW, EDGE = 640, 420, 60, 48, 14  # of the picture, and what surrounds its frame
STYLE = """\
.study-table { overflow-x: auto; font-size: .85em; }
.study-table table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1em 0; }
.study-table th, .study-table td { padding: .2em .6em; text-align: right; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
.study-table th:first-child { text-align: left; position: sticky; left: 0;
  background: var(--color-background-primary, Canvas); }
.study-table button { all: unset; cursor: pointer; font-weight: bold; }
.study-table button:focus-visible { outline: 2px solid; }
.study-table [aria-sort=ascending] button::after { content: " \\25B2"; }
.study-table [aria-sort=descending] button::after { content: " \\25BC"; }
.study-points { max-width: 100%; height: auto; font: 12px sans-serif; fill: currentColor; }
.study-points line { stroke: currentColor; }
.study-points .grid { opacity: .15; }
.study-points circle:hover { r: 9; }
"""
# The largest first at the first click on numbers, the smallest at the second; names the other way round.
SCRIPT = """\
for (const table of document.querySelectorAll(".study-table table")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.append(...header.childNodes);
    header.append(button);
    const key = row => {
      const cell = row.cells[column], data = cell.querySelector("data");
      return data ? Number(data.value) : cell.textContent;
    };
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : `${a}`.localeCompare(`${b}`);
    button.addEventListener("click", () => {
      const first = typeof key(body.rows[0]) === "number" ? "descending" : "ascending";
      const other = first === "descending" ? "ascending" : "descending";
      const order = header.getAttribute("aria-sort") === first ? other : first;
      headers.forEach(each => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      body.append(...[...body.rows].sort((a, b) => sign * compare(key(a), key(b))));
    });
  });
}
"""


class Point(NamedTuple):
    """A point in %, with its spreads over seeds and the group that its colour says."""

    x: float
    y: float
    x_spread: float = 0.0
    y_spread: float = 0.0
    group: int = 0


def number(value: float, spread: float | None = None, style: str = ".1f") -> Rounded:
    """A cell that shows a number, with its spread if it has one, and is sorted by its exact value.

    Example:
        >>> number(45.08, 1.01), number(838017, style=",.0f")
        ('45.1 ± 1.0', '838,017')
    """
    shown = format(value, style)
    return Rounded(shown if spread is None else f"{shown} ± {spread:.1f}", value)


def study_part(rows: Rows, points: Mapping[str, Point], x_label: str, y_label: str) -> str:
    """The part of a page: points, and below them the table.

    Args:
        rows (list of list of `str`): Of which the first is the header; numbers as [`number`] makes them.
        points (`dict`): By name.
        x_label, y_label (`str`): What the axes show.

    Example:
        >>> rows = [["method", "clean"], ["FARE", number(81.5, 0.3)]]
        >>> part = study_part(rows, {"FARE": Point(81.5, 44.9)}, "clean in %", "robust in %")
        >>> "<title>FARE: 81.5, 44.9</title>" in part
        True
    """
    return "\n".join(
        [
            f"<style>\n{STYLE}</style>",
            _scatter(points, x_label, y_label),
            f'<div class="study-table" role="region" aria-label="Table" tabindex="0">\n{render(rows, "html")}\n</div>',
            f"<script>\n{SCRIPT}</script>\n",
        ]
    )


# ---- Points ----


def _scatter(points: Mapping[str, Point], x_label: str, y_label: str) -> str:
    """Points with whiskers as long as their spreads; each shows its name where the mouse rests on it."""
    x_axis = _Axis.of([point.x for point in points.values()], LEFT, WIDTH - EDGE)
    y_axis = _Axis.of([point.y for point in points.values()], HEIGHT - BELOW, EDGE)
    lines = [
        f'<svg class="study-points" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} against {escape(x_label)}, a point for each row of the table">'
    ]

    for tick in x_axis.ticks:
        x = x_axis.place(tick)
        lines.append(_line(x, EDGE, x, HEIGHT - BELOW, "grid"))
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BELOW + 18}" text-anchor="middle">{tick:g}</text>')
    for tick in y_axis.ticks:
        y = y_axis.place(tick)
        lines.append(_line(LEFT, y, WIDTH - EDGE, y, "grid"))
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (EDGE + HEIGHT - BELOW) / 2
    lines.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    lines.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(y_label)}</text>'
    )

    for name, point in points.items():
        x, y = x_axis.place(point.x), y_axis.place(point.y)
        x_half, y_half = abs(x_axis.scale) * point.x_spread, abs(y_axis.scale) * point.y_spread
        colour = LINE_COLOURS[point.group % len(LINE_COLOURS)]
        lines.append(f"<g><title>{escape(name)}: {point.x:.1f}, {point.y:.1f}</title>")
        lines += [_line(x - x_half, y, x + x_half, y), _line(x, y - y_half, x, y + y_half)]
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}"/></g>')
    return "\n".join([*lines, "</svg>"])


class _Axis(NamedTuple):
    """Round numbers along an axis, and where values are."""

    ticks: list[float]
    start: float
    scale: float  # pixels of one unit, below zero where they count downwards

    @classmethod
    def of(cls, values: list[float], start: float, end: float) -> _Axis:
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if max(values) - min(values) <= 6 * step)
        low, high = math.floor(min(values) / step), math.ceil(max(values) / step)
        ticks = [step * place for place in range(low, max(high, low + 1) + 1)]
        return cls(ticks, start, (end - start) / (ticks[-1] - ticks[0]))

    def place(self, value: float) -> float:
        return self.start + self.scale * (value - self.ticks[0])


def _line(x: float, y: float, x_end: float, y_end: float, kind: str = "whisker") -> str:
    return f'<line class="{kind}" x1="{x:.1f}" y1="{y:.1f}" x2="{x_end:.1f}" y2="{y_end:.1f}"/>'
