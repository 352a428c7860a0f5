"""The picture of certificates: what is certified against the radius, and what attacks leave standing above it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..attacks.ball import parse_radius
from ..evaluation.certificate_report import CertificateReport, CertifiedSet, names_of
from .figures import LINE_COLOURS, new_figure, open_frame, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # panels side by side
BEYOND = 1.1  # where curves end, in units of the largest radius


def certified_curve(report: CertificateReport, file: str | os.PathLike) -> Figure:
    """Accuracy against the L2 radius, a panel per set and a colour per sigma.

    The solid line is the certified accuracy, a lower bound at every radius. Markers are what the attacks of the report
    leave standing of the same smoothed model, an upper bound. Both have their 95 % intervals over images. The dotted
    line is the clean accuracy of the bare model.

    Args:
        report (`CertificateReport`): Of any sets and sigmas.
        file (`str`): Where the picture goes, as PNG.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> from hf_pmgaft.evaluation import certify_sets
        >>> food = ZeroShotDataset(dataset, processor, prompt_templates="a photo of the {}", name="food")
        >>> options = {"sigma": 0.05, "draws": 100, "max_samples": 4, "attacks": [], "progress": False}
        >>> figure = certified_curve(certify_sets(model, processor, [food], **options), "certified.png")
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['sigma 0.05, at least', 'bare model, clean']
    """
    names = names_of(report.sets)
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure, grid = new_figure(rows, columns, (5 * columns + 1, 4 * rows), sharey=True)
    panels = grid.flatten()
    end = BEYOND * max([*(parse_radius(radius, "l2") for radius in report.radii), *_all_radii(report)])

    for axis, name in zip(panels, names, strict=False):
        sets = [each for each in report.sets if each.name == name]
        for number, each in enumerate(sets):
            _draw_bounds(axis, each, report, end, LINE_COLOURS[number % len(LINE_COLOURS)])
        axis.axhline(100 * sets[0].clean_accuracy, color="0.45", linestyle=":", label="bare model, clean")
        axis.set(xlim=(0, end), ylim=(0, 100), xlabel="L2 radius, pixels from 0 to 1", title=name)
        axis.legend(fontsize=8, framealpha=0.8)
        open_frame(axis)
    for axis in panels[len(names) :]:
        axis.set_visible(False)
    for row in grid:
        row[0].set_ylabel("accuracy in %")

    save_png(figure, file)
    return figure


def _all_radii(report: CertificateReport) -> list[float]:
    return [radius for each in report.sets for radius in each.radii]


def _draw_bounds(axis: Axes, each: CertifiedSet, report: CertificateReport, end: float, colour: str) -> None:
    """The certified accuracy as a falling line, with its band; markers for what stands under attack."""
    # It falls right after each radius that is certified of an image.
    steps = sorted({0.0, *each.radii, end})
    accuracies = [each.certified_accuracy(radius) for radius in steps]
    heights = [100 * accuracy for accuracy in accuracies]
    axis.step(steps, heights, where="pre", color=colour, label=f"sigma {each.sigma}, at least")
    # Beyond the largest radius nothing can be certified, whatever the images.
    spans = [each.interval(accuracy) if accuracy else (0.0, 0.0) for accuracy in accuracies]
    low, high = zip(*spans, strict=True)
    axis.fill_between(steps, _percents(low), _percents(high), step="pre", alpha=0.12, linewidth=0, color=colour)

    if each.empirical:
        upper = [each.empirical_accuracy(radius) for radius in report.radii]
        places = [parse_radius(radius, "l2") for radius in report.radii]
        spans = [each.interval(accuracy) for accuracy in upper]
        whiskers = [
            [max(0.0, 100 * (accuracy - low)) for accuracy, (low, _) in zip(upper, spans, strict=True)],
            [max(0.0, 100 * (high - accuracy)) for accuracy, (_, high) in zip(upper, spans, strict=True)],
        ]
        axis.errorbar(
            places,
            _percents(upper),
            yerr=whiskers,
            color=colour,
            marker="v",
            linestyle="--",
            linewidth=1,
            capsize=2,
            label=f"sigma {each.sigma}, at most",
            clip_on=False,
        )


def _percents(values: list[float] | tuple[float, ...]) -> list[float]:
    return [100 * value for value in values]
