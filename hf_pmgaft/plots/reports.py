"""Pictures of a run and of reports: training curves, accuracies by set and by radius."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.figure import Figure as ReportFigure
from ..evaluation.intervals import interval_of_mean
from ..evaluation.report import RobustnessReport
from .figures import Place, draw_bars, draw_point, line_style, new_figure, open_frame, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Entries of a log line that are no terms of the loss.
_NO_TERMS = {"grad_norm", "learning_rate", "epoch", "step", "num_input_tokens_seen"}
_EVAL_MEANS = {"eval_mean_clean_accuracy": ("o", "tab:blue"), "eval_mean_robust_accuracy": ("D", "tab:red")}
_ACCURACY_COLOURS = {"clean_accuracy": "tab:blue", "adversarial_accuracy": "tab:red"}
_BALLS = {"linf": "L∞", "l2": "L2", "l1": "L1"}


def training_curves(log_history: Sequence[Mapping[str, Any]], file: str | os.PathLike) -> Figure:
    """Loss terms, accuracies and learning rate over the steps, as three panels.

    Args:
        log_history (list of `dict`): `trainer.state.log_history`. Lines with a `loss` give the curves, evaluations
            the markers.
        file (`str`): Where the picture goes.

    Example:
        >>> log = [{"step": step, "loss": 3 / step, "adversarial_ce": 2 / step} for step in (1, 2, 3)]
        >>> figure = training_curves(log, "training_curves.png")
        >>> [axis.get_title() for axis in figure.axes]
        ['Loss and its unweighted terms', 'Accuracy on training batches', 'Learning rate']
    """
    lines = [line for line in log_history if "loss" in line]
    figure, ((losses, scores, rate),) = new_figure(1, 3, (13, 4), width_ratios=[3, 3, 1.6])

    # Terms and accuracies of training batches, by name
    _draw_curve(losses, lines, "loss", label="loss (weighted sum)", color="black", linewidth=2)
    for name in sorted({name for line in lines for name in line} - _NO_TERMS - {"loss"}):
        if name.endswith("accuracy"):
            colour = _ACCURACY_COLOURS.get(name.removeprefix("teacher_"))
            _draw_curve(scores, lines, name, color=colour, linestyle="--" if name.startswith("teacher_") else "-")
        else:
            _draw_curve(losses, lines, name)

    # Evaluations, and the learning rate
    for name, (marker, colour) in _EVAL_MEANS.items():
        style = {"marker": marker, "color": colour, "linestyle": "", "markeredgecolor": "black"}
        _draw_curve(scores, log_history, name, **style)
    _draw_curve(rate, lines, "learning_rate", color="0.35")

    scores.set_ylim(-0.02, 1.02)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    titles = ("Loss and its unweighted terms", "Accuracy on training batches", "Learning rate")
    for axis, title in zip((losses, scores, rate), titles, strict=True):
        axis.set(title=title, xlabel="step")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(alpha=0.3)
        if axis is not rate and axis.lines:
            axis.legend(fontsize=8, loc="best", framealpha=0.7)
    save_png(figure, file)
    return figure


def robustness_bars(reports: Mapping[str, RobustnessReport], file: Place) -> Figure:
    """Clean and robust accuracy, or recalls, per set, with 95 % intervals, and their means; a panel each, a bar per
    report.

    Robust is the worst case over the attacks of the headline threat, which the title names.

    Args:
        reports (`dict` of `RobustnessReport`): By name, such as `{"before": ..., "after": ...}`; the same attacks on
            the same sets.
        file (`str`): Where the picture goes.

    Raises:
        ValueError: if the reports' attacks, sets or verdicts differ.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> figure = robustness_bars({"tiny CLIP": report}, "robustness.png")
        >>> figure.axes[1].get_title()
        'Robust accuracy under FGSM ce linf 4/255'
    """
    common = _common(reports)
    names = [result.name for result in common.sets]
    kind, mean = common.sets[0].kind, "mean"
    if any(result.kind != kind for result in common.sets):
        kind, mean = "figures", f"mean {kind}"

    figure, ((clean,), (robust,)) = new_figure(2, 1, (max(8.0, 1.1 * len(names) + 1), 7))
    _draw_bars_of_sets(clean, reports, "clean")
    _draw_bars_of_sets(robust, reports, "robust")

    is_turned = len(names) > 6 or not common.sets[0].figure.is_accuracy
    for axis, title in ((clean, f"Clean {kind}"), (robust, f"Robust {kind} under {_headline(common)}")):
        axis.set_ylabel(f"{kind} in %")
        axis.set_title(textwrap.fill(title, 100))
        axis.set_xticks([*range(len(names)), len(names) + 0.3], [*names, mean], rotation=20 if is_turned else 0)
    figure.legend(*clean.get_legend_handles_labels(), ncols=len(reports), loc="outside upper right")
    save_png(figure, file)
    return figure


def robustness_curve(
    reports: Mapping[str, RobustnessReport],
    file: Place,
    norm: str = "linf",
    figure: ReportFigure | str | None = None,
) -> Figure:
    """Accuracy against the radius, a line per report; the clean accuracy stands at radius 0.

    A point is the mean over sets of the worst case over the attacks of that radius. A single set gives it its 95 %
    band; of several sets the mean has none, as in [`robustness_bars`]. The dotted line is chance; recalls have
    none, since queries differ in how many answers are right.

    Args:
        reports (`dict` of `RobustnessReport`): By name; the same attacks on the same sets.
        file (`str`): Where the picture goes.
        norm (`str`): Of the balls that are shown, `"linf"` (radii in 1/255), `"l2"` or `"l1"` (in the scale of images
            in [0,1]); attacks of other threats are left out.
        figure (`str`, *optional*): Such as `"I2T R@1"`; that of `RobustnessReport.of` if not given.

    Raises:
        ValueError: if the reports' attacks, sets or verdicts differ, or none of the attacks has that norm.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> attacks = ["fgsm,eps=2/255", "fgsm,eps=4/255"]
        >>> report = evaluate_robustness(model, processor, [food], attacks, progress=False)
        >>> curve = robustness_curve({"tiny CLIP": report}, "curve.png")
        >>> [label.get_text() for label in curve.axes[0].get_xticklabels()]
        ['0', '2', '4']
    """
    _common(reports)
    reports = {name: report.of(figure) for name, report in reports.items()}
    common = _common(reports)
    label = _label(common)
    radii = _radii(common, norm)
    unit = 255 if norm == "linf" else 1
    places = [0.0, *(unit * radius for radius in radii.values())]

    picture, ((axis,),) = new_figure(1, 1, (6.5, 4.5))
    for number, (name, report) in enumerate(reports.items()):
        values = [_mean(report, key) for key in ("clean", *radii)]
        style = line_style(number)
        axis.plot(places, values, label=name, **style, markersize=5, clip_on=False, zorder=3)
        if len(report.sets) == 1:
            low, high = zip(*(_mean_interval(report, key) for key in ("clean", *radii)), strict=True)
            axis.fill_between(places, low, high, alpha=0.15, linewidth=0, color=style["color"])
    if label == "accuracy":
        chance = sum(100 / result.num_classes for result in common.sets) / len(common.sets)
        axis.axhline(chance, color="0.45", linestyle=":", linewidth=1.2, label=f"chance ({chance:.2g} %)")

    axis.set(xlim=(0, None), ylim=(0, 100), ylabel=f"{label} in % ({_averaged(common)})")
    axis.set_xticks(places, [f"{place:.3g}" for place in places])
    axis.set_xlabel(f"{_BALLS.get(norm, norm)} radius" + (" in 1/255 (0: clean)" if unit == 255 else " (0: clean)"))
    attacks = _attacks_by_threat(common, list(radii))
    query = "image" if common.figures[0].counts_images else "query"
    title = f"{label[0].upper()}{label[1:]} under {attacks} (worst case per {query})"
    axis.set_title(textwrap.fill(title, 75), fontsize=10)
    open_frame(axis)
    axis.legend(fontsize=9, framealpha=0.8)
    save_png(picture, file)
    return picture


def clean_against_robust(reports: Mapping[str, RobustnessReport], file: Place) -> Figure:
    """Shows what robustness costs: a point per report, mean clean against mean robust accuracy, with 95 % intervals.

    Robust is the worst case over the attacks of the headline threat, which the axis names. The intervals are those of
    the sets, taken as independent: how the means of other images of the same sets would scatter.

    Args:
        reports (`dict` of `RobustnessReport`): By name; the same attacks on the same sets.
        file (`str`): Where the picture goes.

    Raises:
        ValueError: if the reports' attacks, sets or verdicts differ.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> figure = clean_against_robust({"before": report, "after": report}, "costs.png")
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['before', 'after']
    """
    _common(reports)
    reports = {name: report.of() for name, report in reports.items()}
    common = _common(reports)
    label = _label(common)

    figure, ((axis,),) = new_figure(1, 1, (6.5, 5))
    for number, (name, report) in enumerate(reports.items()):
        x, y = (_mean(report, key) for key in ("clean", "robust"))
        (left, right), (low, high) = (_mean_interval(report, key) for key in ("clean", "robust"))
        draw_point(axis, x, y, [[x - left], [right - x]], [[y - low], [high - y]], number, name)

    axis.set_xlabel(f"clean {label} in % ({_averaged(common)})")
    axis.set_ylabel(f"robust {label} in % ({_averaged(common)})\n" + textwrap.fill(f"under {_headline(common)}", 60))
    axis.set_ylim(bottom=max(0, axis.get_ylim()[0]))
    axis.set_title(f"Clean against robust {label}")
    open_frame(axis)
    figure.legend(fontsize=9, loc="outside right upper")
    save_png(figure, file)
    return figure


def report_pictures(reports: Mapping[str, RobustnessReport]) -> dict[str, Callable[[Place], Figure]]:
    """What draws each picture of some reports, by its name: bars, a curve for every norm of a ball, and of several
    reports clean against robust accuracy.

    Args:
        reports (`dict` of `RobustnessReport`): By name; the same attacks on the same sets.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> list(report_pictures({"tiny CLIP": report}))
        ['bars', 'curve_linf']
    """
    pictures = {"bars": partial(robustness_bars, reports)}

    first = next(iter(reports.values()))
    norms = {attack.norm for attack in first.attacks if attack.source is None} - {None}
    for norm in sorted(norms):
        for figure in first.figures:
            suffix = "" if figure.kind == "accuracy" else f"_{figure.key.lower()}"
            pictures[f"curve_{norm}{suffix}"] = partial(robustness_curve, reports, norm=norm, figure=figure)

    if len(reports) > 1:
        pictures["clean_against_robust"] = partial(clean_against_robust, reports)
    return pictures


# ---- Curves and bars ----


def _draw_curve(axis: Axes, lines: Sequence[Mapping[str, Any]], name: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        # A line through few points would hardly be seen.
        style = {"label": name.replace("_", " "), "marker": "." if len(points) < 30 else "", **style}
        axis.plot(*zip(*points, strict=True), **style)


def _draw_bars_of_sets(axis: Axes, reports: Mapping[str, RobustnessReport], key: str) -> None:
    """A group of bars for each set and for the mean, a bar for each report."""
    width = 0.8 / len(reports)
    for number, (name, report) in enumerate(reports.items()):
        spans = []
        for result in report.sets:
            spans.append((result.value(key), *result.interval(key)))
        # The mean has no interval: those of its sets say nothing of other sets.
        mean = report.mean(f"{key}_accuracy")
        spans.append((mean, mean, mean))

        heights, low, high = 100 * np.array(spans).T
        whiskers = np.maximum([heights - low, high - heights], 0)
        shift = (number - (len(reports) - 1) / 2) * width
        places = np.array([*range(len(report.sets)), len(report.sets) + 0.3]) + shift
        draw_bars(axis, places, heights, width, whiskers, number, name)

    axis.axvline(len(report.sets) - 0.35, color="0.8", linewidth=1)
    axis.set(ylim=(0, 108), yticks=range(0, 101, 20))


# ---- Figures of the reports ----


def _common(reports: Mapping[str, RobustnessReport]) -> RobustnessReport:
    """One of the reports, for what they share; raises `ValueError` if they do not share it."""
    if not reports:
        raise ValueError("You passed no reports, so there is nothing to draw. Pass at least one by its name.")

    shared: dict[str, Callable[[RobustnessReport], Any]] = {
        "attacks": lambda report: [spec.name for spec in report.attacks],
        "headline": lambda report: report.protocol.get("headline"),
        "sets": lambda report: [(r.name, r.num_classes, r.num_samples) for r in report.sets],
        "verdict": lambda report: report.protocol.get("verdict"),
    }
    (first_name, first), *others = reports.items()
    for name, report in others:
        for key, read in shared.items():
            if read(report) != read(first):
                raise ValueError(
                    f"The reports {first_name!r} and {name!r} differ in their {key} ({read(first)} and "
                    f"{read(report)}), so that their figures cannot be compared. Pass reports of one protocol."
                )
    return first


def _headline(report: RobustnessReport) -> str:
    return ", ".join(spec.name for spec in report.headline_attacks)


def _radii(report: RobustnessReport, norm: str) -> dict[str, float]:
    """The report's threats that are balls of a norm, by growing radius; without those from other models."""
    attacks = [spec for spec in report.attacks if spec.norm == norm and spec.source is None]
    radii = {spec.threat: spec.radius for spec in attacks}
    if not radii:
        threats = sorted({spec.threat for spec in report.attacks})
        raise ValueError(
            f"You asked for the accuracy against the {norm} radius, but the reports have the threats {threats}. "
            "Choose another norm, or evaluate with attacks of this one."
        )
    return dict(sorted(radii.items(), key=lambda item: item[1]))


def _attacks_by_threat(report: RobustnessReport, threats: Sequence[str]) -> str:
    """The attacks of some threats, once if they are the same at every radius."""
    names = {threat: [] for threat in threats}
    for spec in report.attacks:
        if spec.threat in names:
            names[spec.threat].append(spec.name.replace(f" {spec.threat}", "", 1))
    listed = {threat: ", ".join(attacks) for threat, attacks in names.items()}
    if len(set(listed.values())) == 1:
        return listed[threats[0]]
    return "; ".join(f"{attacks} at {threat}" for threat, attacks in listed.items())


def _mean(report: RobustnessReport, key: str) -> float:
    """The mean over sets, in percent, of `"clean"`, `"robust"` or a threat."""
    return 100 * sum(result.value(key) for result in report.sets) / len(report.sets)


def _mean_interval(report: RobustnessReport, key: str) -> tuple[float, float]:
    """95 % interval, in percent, of the mean over independent sets."""
    low, high = interval_of_mean([(result.value(key), *result.interval(key)) for result in report.sets])
    return 100 * low, 100 * high


def _label(report: RobustnessReport) -> str:
    """The figure of all rows in words, or their kind if they differ."""
    return report.figures[0].title if len(report.figures) == 1 else report.sets[0].kind


def _averaged(report: RobustnessReport) -> str:
    if len(report.sets) == 1:
        return report.sets[0].name
    return f"mean of {len(report.sets)} {'sets' if len(report.figures) == 1 else 'figures'}"
