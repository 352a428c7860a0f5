"""What a grid came to: means and spreads over seeds, paired intervals, and rows of tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from ..evaluation.comparison import compare_reports
from ..evaluation.intervals import Z_95, difference_over_seeds
from ..evaluation.report import RobustnessReport
from ..evaluation.tables import Rows, percent, points, span_of_points
from .grid import UNTRAINED, Grid
from .row import Row, shots_text

FIGURES = ("clean", "robust")
HARMONIC = "H"  # of base and new
HALVES = ("base", "new")
Halves = tuple[Sequence[int], Sequence[int]]  # verdicts on each


@dataclass(frozen=True)
class Cell:
    """A figure of one method, number of shots and test: over seeds, and against the baseline.

    Attributes:
        set, method (`str`), shots (`int`, *optional*), test (`str`): Its place; shots `None` for all, 0 untrained.
        figure (`str`): `"clean"` or `"robust"`.
        values (`dict[int, float]`): By seed, in [0,1].
        num_images (`int`): Test images; of `"H"` those of both halves.
        difference (`tuple[float, float, float]`, *optional*): By how much it is ahead of the baseline, and the 95 %
            interval over images and seeds.
    """

    set: str
    method: str
    shots: int | None
    test: str
    figure: str
    values: Mapping[int, float]
    num_images: int
    difference: tuple[float, float, float] | None = None

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return fmean(self.values.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (with n - 1); `None` of one seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def text(self) -> str:
        """Mean and spread in percent.

        Example:
            >>> Cell("pets", "tecoa", 4, "pets", "clean", {0: 0.7, 1: 0.72}, 200).text
            '71.0 ± 1.4'
        """
        return percent(self.mean) + ("" if self.spread is None else f" ± {100 * self.spread:.1f}")


def harmonic_mean(base: float, new: float) -> float:
    """The harmonic mean of two accuracies, `2bn / (b + n)`: 0 if either is.

    Example:
        >>> harmonic_mean(0.8, 0.4), harmonic_mean(0.8, 0.0), harmonic_mean(0.0, 0.0)
        (0.5333..., 0.0, 0.0)
    """
    return 2 * base * new / (base + new) if base and new else 0.0


def harmonic_difference(first: Sequence[Halves], second: Sequence[Halves]) -> tuple[float, float, float]:
    """By how much the second of two methods is ahead in the harmonic mean of base and new, over seeds and images.

    The interval is that of [`difference_over_seeds`], in which each image counts by what one more right answer adds to
    the harmonic mean (its derivative in the half's accuracy): the delta method.

    Args:
        first, second (list of pairs): By seed, the verdicts on the base and on the new classes, 1 for right.

    Returns:
        `tuple[float, float, float]`: Difference of the means over seeds, and its 95 % interval.

    Example:
        >>> harmonic_difference([([0, 1, 1, 0], [1, 0, 1, 0])], [([1, 1, 1, 0], [1, 0, 1, 0])])
        (0.09..., -0.16..., 0.36...)
    """
    pairs = list(zip(first, second, strict=True))
    of_seeds = [harmonic_mean(*map(fmean, ours)) - harmonic_mean(*map(fmean, theirs)) for theirs, ours in pairs]

    # Variance over the images of each half, of their mean over seeds, and over seeds
    variance = 0.0
    for half in (0, 1):
        changes = [_changes(theirs, ours, half) for theirs, ours in pairs]
        images = [fmean(of_image) for of_image in zip(*changes, strict=True)]
        variance += statistics.variance(images) / len(images) if len(images) > 1 else 0.0
    if len(of_seeds) > 1:
        variance += statistics.variance(of_seeds) / len(of_seeds)

    mean, half_width = fmean(of_seeds), Z_95 * math.sqrt(variance)
    return mean, max(-1.0, mean - half_width), min(1.0, mean + half_width)


def _changes(first: Halves, second: Halves, half: int) -> list[float]:
    """What each image of a half adds to the difference of two harmonic means, to first order."""
    weights = [_slope(fmean(halves[half]), fmean(halves[1 - half])) for halves in (first, second)]
    return [weights[1] * b - weights[0] * a for a, b in zip(first[half], second[half], strict=True)]


def _slope(accuracy: float, other: float) -> float:
    """The derivative of the harmonic mean in one of its two."""
    return 2 * (other / (accuracy + other)) ** 2 if accuracy or other else 0.0


def cells_of(grid: Grid, rows: Sequence[Row]) -> list[Cell]:
    """The figures of all rows that are done, by method, shots and test.

    Raises:
        ValueError: if rows that are compared follow different protocols.
    """
    done = [row for row in rows if row.tests and row.is_done()]
    reports = {(row.set, row.method, row.shots, row.seed): row.report() for row in done}
    places = dict.fromkeys((row.set, row.method, row.shots) for row in sorted(done, key=lambda row: _order(grid, row)))
    cells = []
    for place in places:
        of_seeds = {key[3]: report for key, report in reports.items() if key[:3] == place}
        baselines = _baselines(grid, place, of_seeds, reports)
        for test in [result.name for result in next(iter(of_seeds.values())).sets]:
            cells += [_cell(place, test, figure, of_seeds, baselines) for figure in FIGURES]
        if grid.protocol == "base_to_new":
            cells += [_harmonic(place, figure, of_seeds, baselines) for figure in FIGURES]
    return cells


def _order(grid: Grid, row: Row) -> tuple[int, int, int]:
    shots = -1 if row.method == UNTRAINED else list(grid.shots).index(row.shots)
    return list(grid.sets).index(row.set), shots, list(grid.methods).index(row.method)


def _baselines(
    grid: Grid,
    place: tuple[str, str, int | None],
    of_seeds: Mapping[int, RobustnessReport],
    reports: Mapping[tuple, RobustnessReport],
) -> dict[int, RobustnessReport]:
    """The baseline's reports of the same shots and seeds, as far as they are there."""
    name, method, shots = place
    if grid.baseline == method or method == UNTRAINED:
        return {}
    baselines = {}
    for seed, report in of_seeds.items():
        key = (name, UNTRAINED, 0, grid.seeds[0]) if grid.baseline == UNTRAINED else (name, grid.baseline, shots, seed)
        if key in reports:
            compare_reports(reports[key], report)  # which refuses those of different protocols
            baselines[seed] = reports[key]
    return baselines


def _cell(
    place: tuple[str, str, int | None],
    test: str,
    figure: str,
    of_seeds: Mapping[int, RobustnessReport],
    baselines: Mapping[int, RobustnessReport],
) -> Cell:
    results = {seed: _result(report, test) for seed, report in of_seeds.items()}
    values = {seed: getattr(result, f"{figure}_accuracy") for seed, result in results.items()}
    difference = None
    if baselines:
        theirs = [_result(report, test).verdicts[figure] for report in baselines.values()]
        ours = [results[seed].verdicts[figure] for seed in baselines]
        difference = difference_over_seeds(theirs, ours)
    return Cell(*place, test, figure, values, next(iter(results.values())).num_samples, difference)


def _harmonic(
    place: tuple[str, str, int | None],
    figure: str,
    of_seeds: Mapping[int, RobustnessReport],
    baselines: Mapping[int, RobustnessReport],
) -> Cell:
    ours = {seed: _halves(report, figure) for seed, report in of_seeds.items()}
    values = {seed: harmonic_mean(*map(fmean, halves)) for seed, halves in ours.items()}
    difference = None
    if baselines:
        theirs = [_halves(report, figure) for report in baselines.values()]
        difference = harmonic_difference(theirs, [ours[seed] for seed in baselines])
    num_images = sum(map(len, next(iter(ours.values()))))
    return Cell(*place, HARMONIC, figure, values, num_images, difference)


def _halves(report: RobustnessReport, figure: str) -> Halves:
    base, new = (_result(report, half).verdicts[figure] for half in HALVES)
    return base, new


def _result(report: RobustnessReport, test: str) -> Any:
    return next(result for result in report.sets if result.name == test)


# ---- As tables, pictures and JSON ----


def table(cells: Sequence[Cell]) -> Rows:
    """A row per method, shots and test: clean and robust with their spread, and robust against the baseline."""
    by_place: dict[tuple, dict[str, Cell]] = {}
    for cell in cells:
        by_place.setdefault((cell.set, cell.method, cell.shots, cell.test), {})[cell.figure] = cell

    rows = [["method", "shots", "test", "images", "clean", "robust", "robust, against the baseline"]]
    for (name, method, shots, test), figures in by_place.items():
        where = test if test == name else f"{name}: {test}"
        against = figures["robust"].difference
        rows.append(
            [
                method,
                {None: "all", 0: ""}.get(shots, str(shots)),
                where,
                str(figures["clean"].num_images),
                figures["clean"].text,
                figures["robust"].text,
                "" if against is None else f"{points(against[0])} ({span_of_points(*against[1:])})",
            ]
        )
    return rows


def curves(cells: Sequence[Cell], set_name: str, test: str, figure: str) -> dict[str, dict[str, tuple[float, float]]]:
    """By method and shots in words the mean in percent and half its whisker, for a picture."""
    lines: dict[str, dict[str, tuple[float, float]]] = {}
    for cell in cells:
        if (cell.set, cell.test, cell.figure) == (set_name, test, figure):
            shots = "" if cell.shots == 0 else shots_text(cell.shots).split()[0]
            lines.setdefault(cell.method, {})[shots] = (100 * cell.mean, 100 * (cell.spread or 0.0))
    return lines


def record(grid: Grid, rows: Sequence[Row], cells: Sequence[Cell], failed: Mapping[str, str]) -> dict[str, Any]:
    """Everything, in types that JSON has: the grid, what each row came to, and the figures over seeds."""
    done = [row for row in rows if row.tests and row.is_done()]
    return {
        "protocol": grid.protocol,
        "seeds": list(grid.seeds),
        "baseline": grid.baseline,
        "grid": asdict(grid),
        "rows": [_row_record(row) for row in done],
        "figures": [{**asdict(cell), "mean": cell.mean, "spread": cell.spread} for cell in cells],
        "failed": dict(failed),
        "left": [row.name for row in rows if not row.is_done()],
    }


def _row_record(row: Row) -> dict[str, Any]:
    report = row.report()
    own = {key: value for key, value in report.provenance["few_shots"].items() if key != "evaluation"}
    figures = {
        result.name: {
            "images": result.num_samples,
            "classes": result.num_classes,
            **{figure: getattr(result, f"{figure}_accuracy") for figure in FIGURES},
        }
        for result in report.sets
    }
    place = {"set": row.set, "method": row.method, "shots": row.shots, "seed": row.seed}
    return {**place, "protocol_hash": report.protocol_hash, "trained": row.trained(), **own, "tests": figures}
