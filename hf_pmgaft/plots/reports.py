"""Pictures, written as PNG and returned as figures: training curves, accuracies by set and radius, galleries."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ..attacks.ball import parse_radius
from ..attacks.spec import attack_name, norm_of, threat_name
from ..evaluation.intervals import wilson_interval
from ..evaluation.report import RobustnessReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_NO_TERMS = {"grad_norm", "learning_rate", "epoch", "step", "num_input_tokens_seen"}
_EVAL_MEANS = {"eval_mean_clean_accuracy": ("o", "tab:blue"), "eval_mean_robust_accuracy": ("D", "tab:red")}
_ACCURACY_COLOURS = {"clean_accuracy": "tab:blue", "adversarial_accuracy": "tab:red"}
_BAR_COLOURS = ("#a9b8c9", "#2463a6", "#d9822b", "#4c9a5a", "#8a5fb0")
_PNG = {"format": "png", "dpi": 130, "bbox_inches": "tight"}
_RIGHT, _WRONG = "#1a7f37", "#b42318"
_LINE_COLOURS = ("#2463a6", "#d9822b", "#4c9a5a", "#8a5fb0", "#b5455c", "#3aa6a6", "#8c6d31", "#56697d")
_MARKERS = "osD^v<>"  # one fewer than colours, so that both come together again only after 56 lines
_BALLS = {"linf": "L∞", "l2": "L2", "l1": "L1"}
_HEAT = "inferno"


def training_curves(log_history: Sequence[Mapping[str, Any]], file: str | os.PathLike) -> Figure:
    """Loss terms, accuracies and learning rate over the steps, as three panels.

    Args:
        log_history (list of `dict`): `trainer.state.log_history`. Lines with a `loss` give the curves, evaluations
            the markers.
        file (`str`): Where the picture goes.
    """
    lines = [line for line in log_history if "loss" in line]
    figure, ((losses, scores, rate),) = _figure(1, 3, (13, 4), width_ratios=[3, 3, 1.6])
    _curve(losses, lines, "loss", label="loss (weighted sum)", color="black", linewidth=2)
    for name in sorted({name for line in lines for name in line} - _NO_TERMS):
        if name.endswith("accuracy"):
            colour = _ACCURACY_COLOURS.get(name.removeprefix("teacher_"))
            _curve(scores, lines, name, color=colour, linestyle="--" if name.startswith("teacher_") else "-")
        elif name != "loss":
            _curve(losses, lines, name)
    for name, (marker, colour) in _EVAL_MEANS.items():
        _curve(scores, log_history, name, marker=marker, color=colour, linestyle="", markeredgecolor="black")
    _curve(rate, lines, "learning_rate", color="0.35")
    scores.set_ylim(-0.02, 1.02)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    titles = ("Loss and its unweighted terms", "Accuracy on training batches", "Learning rate")
    for axis, title in zip((losses, scores, rate), titles, strict=True):
        axis.set(title=title, xlabel="step")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.grid(alpha=0.3)
        if axis is not rate and axis.lines:
            axis.legend(fontsize=8, loc="best", framealpha=0.7)
    figure.savefig(file, **_PNG)
    return figure


def robustness_bars(reports: Mapping[str, RobustnessReport], file: str | os.PathLike) -> Figure:
    """Clean and robust accuracy, or recalls, per set, with 95 % intervals, and their means; a panel each, a bar per
    report.

    Robust is the worst case over the attacks of the headline threat, which the title names.

    Args:
        reports (`dict` of `RobustnessReport`): By name, such as `{"before": ..., "after": ...}`; the same attacks on
            the same sets.
        file (`str`): Where the picture goes.

    Raises:
        ValueError: if the reports' attacks, sets or verdicts differ.
    """
    common = _common(reports)
    names = [result.name for result in common.sets]
    figure, ((clean,), (robust,)) = _figure(2, 1, (max(8.0, 1.1 * len(names) + 1), 7))
    _bars(clean, reports, "clean_accuracy")
    _bars(robust, reports, "robust_accuracy")
    kind = common.sets[0].kind
    for axis, title in ((clean, f"Clean {kind}"), (robust, f"Robust {kind} under {_headline(common)}")):
        axis.set_ylabel(f"{kind} in %")
        axis.set_title(textwrap.fill(title, 100))
        turned = len(names) > 6 or common.sets[0].figure != "accuracy"
        axis.set_xticks([*range(len(names)), len(names) + 0.3], [*names, "mean"], rotation=20 if turned else 0)
    figure.legend(*clean.get_legend_handles_labels(), ncols=len(reports), loc="outside upper right")
    figure.savefig(file, **_PNG)
    return figure


def robustness_curve(
    reports: Mapping[str, RobustnessReport], file: str | os.PathLike, norm: str = "linf", figure: str | None = None
) -> Figure:
    """Accuracy against the radius, a line per report; the clean accuracy stands at radius 0.

    A point is the mean over sets of the worst case over the attacks of that radius. A single set gives it its 95 %
    Wilson band; of several sets the mean has none, as in [`robustness_bars`]. The dotted line is chance; recalls have
    none, since queries differ in how many answers are right.

    Args:
        reports (`dict` of `RobustnessReport`): By name; the same attacks on the same sets.
        file (`str`): Where the picture goes.
        norm (`str`): Of the balls that are shown, `"linf"` (radii in 1/255), `"l2"` or `"l1"` (in the scale of images
            in [0,1]); attacks of other threats are left out.
        figure (`str`, *optional*): Such as `"I2T R@1"`; that of `RobustnessReport.of` if not given.

    Raises:
        ValueError: if the reports' attacks, sets or verdicts differ, or none of the attacks has that norm.
    """
    _common(reports)
    reports = {name: report.of(figure) for name, report in reports.items()}
    common = _common(reports)
    label = _label(common)
    radii = _radii(common, norm)
    unit = 255 if norm == "linf" else 1
    places = [0.0, *(unit * radius for radius in radii.values())]
    picture, ((axis,),) = _figure(1, 1, (6.5, 4.5))
    for i, (name, report) in enumerate(reports.items()):
        columns = [_accuracies(report), *(_accuracies(report, threat) for threat in radii)]
        values = [100 * sum(column) / len(column) for column in columns]
        axis.plot(places, values, label=name, **_line_style(i), markersize=5, clip_on=False, zorder=3)
        if len(report.sets) == 1:
            low, high = zip(*(_mean_interval(report, column) for column in columns), strict=True)
            axis.fill_between(places, low, high, alpha=0.15, linewidth=0, color=_line_style(i)["color"])
    if label == "accuracy":
        chance = sum(100 / result.num_classes for result in common.sets) / len(common.sets)
        axis.axhline(chance, color="0.45", linestyle=":", linewidth=1.2, label=f"chance ({chance:.2g} %)")
    axis.set(xlim=(0, None), ylim=(0, 100), ylabel=f"{label} in % ({_averaged(common)})")
    axis.set_xticks(places, [f"{place:.3g}" for place in places])
    axis.set_xlabel(f"{_BALLS.get(norm, norm)} radius" + (" in 1/255 (0: clean)" if unit == 255 else " (0: clean)"))
    axis.set_title(
        textwrap.fill(
            f"{label[0].upper()}{label[1:]} under {_attacks_by_threat(common, list(radii))} "
            f"(worst case per {'image' if label == 'accuracy' else 'query'})",
            75,
        ),
        fontsize=10,
    )
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, framealpha=0.8)
    picture.savefig(file, **_PNG)
    return picture


def clean_against_robust(reports: Mapping[str, RobustnessReport], file: str | os.PathLike) -> Figure:
    """What robustness costs: a point per report, mean clean against mean robust accuracy, with 95 % intervals.

    Robust is the worst case over the attacks of the headline threat, which the axis names. The intervals are those of
    the sets, taken as independent: how the means of other images of the same sets would scatter.

    Args:
        reports (`dict` of `RobustnessReport`): By name; the same attacks on the same sets.
        file (`str`): Where the picture goes.

    Raises:
        ValueError: if the reports' attacks, sets or verdicts differ.
    """
    _common(reports)
    reports = {name: report.of() for name, report in reports.items()}
    common = _common(reports)
    label = _label(common)
    figure, ((axis,),) = _figure(1, 1, (6.5, 5))
    for i, (name, report) in enumerate(reports.items()):
        columns = [_accuracies(report), [result.robust_accuracy for result in report.sets]]
        x, y = (100 * sum(column) / len(column) for column in columns)
        (left, right), (low, high) = (_mean_interval(report, column) for column in columns)
        whiskers = {"xerr": [[x - left], [right - x]], "yerr": [[y - low], [high - y]]}
        axis.errorbar(x, y, **whiskers, fmt="none", ecolor=_line_style(i)["color"], elinewidth=1, capsize=2, alpha=0.7)
        axis.plot(x, y, label=name, **_line_style(i), linestyle="", markersize=8, markeredgecolor="white", zorder=3)
    axis.set_xlabel(f"clean {label} in % ({_averaged(common)})")
    axis.set_ylabel(f"robust {label} in % ({_averaged(common)})\n" + textwrap.fill(f"under {_headline(common)}", 60))
    axis.set_ylim(bottom=max(0, axis.get_ylim()[0]))
    axis.set_title(f"Clean against robust {label}")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=9, loc="outside right upper")
    figure.savefig(file, **_PNG)
    return figure


def scatter_with_spread(
    points: Mapping[str, tuple[float, float, float, float]], file: str | os.PathLike, x_label: str, y_label: str
) -> Figure:
    """A named point per entry, `(x, y, spread of x, spread of y)`, with whiskers as long as the spreads."""
    figure, ((axis,),) = _figure(1, 1, (8, 5.5))
    for i, (name, (x, y, x_spread, y_spread)) in enumerate(points.items()):
        whiskers = {"xerr": x_spread, "yerr": y_spread, "ecolor": _line_style(i)["color"], "elinewidth": 1}
        axis.errorbar(x, y, **whiskers, fmt="none", capsize=2, alpha=0.7)
        axis.plot(x, y, label=name, **_line_style(i), linestyle="", markersize=8, markeredgecolor="white", zorder=3)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(file, **_PNG)
    return figure


def bars_with_spread(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]], file: str | os.PathLike
) -> Figure:
    """A panel per figure, in it a group of bars per method, with whiskers as long as the spreads.

    Args:
        panels (`dict`): By title, then by condition, such as `"clean"` and a radius, then by method: a mean in % and
            its spread. A panel may lack conditions, but no method.
        file (`str`): Where the picture goes.
    """
    conditions = list(dict.fromkeys(name for groups in panels.values() for name in groups))
    methods = list(next(iter(next(iter(panels.values())).values())))
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, grid = _figure(rows, columns, (columns * (0.8 + 0.6 * len(methods)), 0.4 + 3.3 * rows), sharey=True)
    for axis in grid.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, groups) in zip(grid.flat, panels.items(), strict=False):
        width = 0.85 / len(groups)
        for i, (condition, of_methods) in enumerate(groups.items()):
            means, spreads = zip(*(of_methods[name] for name in methods), strict=True)
            places = np.arange(len(methods)) + (i - (len(groups) - 1) / 2) * width
            style = {"color": _BAR_COLOURS[conditions.index(condition) % len(_BAR_COLOURS)], "label": condition}
            bars = axis.bar(places, means, width, yerr=spreads, error_kw={"ecolor": "0.25", "elinewidth": 1}, **style)
            axis.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(methods)), methods, rotation=35, ha="right", fontsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in grid[:, 0]:
        axis.set(ylim=(0, 108), yticks=range(0, 101, 20), ylabel="%")
    handles = {label: bar for axis in grid.flat for bar, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    figure.savefig(file, **_PNG)
    return figure


def gallery(
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    class_names: Sequence[str],
    labels: Sequence[int],
    predictions: Mapping[str, Sequence[int]],
    file: str | os.PathLike,
    *,
    eps: str | float,
    norm: str = "linf",
    columns: int = 8,
    title: str | None = None,
) -> Figure:
    """A column per image: clean, magnified perturbation, adversarial, and what each model makes of it.

    Args:
        clean, adversarial (`torch.Tensor`): `[N,3,H,W]` in [0,1].
        class_names (`list[str]`): Names by label.
        labels (`list[int]`): True classes.
        predictions (`dict` of `list[int]`): Predicted classes, by the model's name, each under the attack on it;
            `adversarial` is that on the last one.
        file (`str`): Where the picture goes.
        eps (`str` or `float`): Radius. In L-inf the perturbation is scaled so that +-eps goes from black to white
            around mid-grey; in L2 its largest value does.
        norm (`str`): Norm of the ball, `"linf"` or `"l2"`.
        columns (`int`), title (`str`): How many images are shown, and what is written above them.
    """
    clean, adversarial = clean[:columns].detach().float().cpu(), adversarial[:columns].detach().float().cpu()
    delta = adversarial - clean
    radius = parse_radius(eps, norm) if norm == "linf" else delta.abs().max().item()
    factor = 0.5 / max(radius, 1e-8)
    rows = {"clean": clean, f"perturbation × {factor:.2g}": 0.5 + factor * delta, "adversarial": adversarial}
    figure, axes = _figure(3, len(clean), (1.7 * len(clean) + 0.5, 5.8 + 0.2 * len(predictions)))
    for axis_row, (name, pixels) in zip(axes, rows.items(), strict=True):
        axis_row[0].set_ylabel(name)
        for axis, image in zip(axis_row, pixels, strict=True):
            _show(axis, image)
    for column, label in enumerate(labels[: len(clean)]):
        axes[0, column].set_title(_short(class_names[label]), fontsize=9, parse_math=False)
        for line, (name, predicted) in enumerate(predictions.items()):
            _write_verdict(axes[2, column], line, f"{name}: ", predicted[column], label, class_names)
    title = title or f"Each model against its own attack, {norm} radius {eps} (shown: the last one's)"
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, **_PNG)
    return figure


def attention_gallery(
    images: Mapping[str, torch.Tensor],
    attention: Mapping[str, torch.Tensor],
    predictions: Mapping[str, torch.Tensor],
    class_names: Sequence[str],
    labels: Sequence[int],
    file: str | os.PathLike,
    *,
    title: str | None = None,
) -> Figure:
    """Where models look: a column per image; per model the image clean and attacked, and under it the attention.

    A map is scaled to its own range, resized to the image and laid over it: brightness says where a model looks, not
    how much. Under a pair of maps stands their correlation over the patches; 1 is an attention that the attack does
    not move.

    Args:
        images (`dict` of `torch.Tensor`): By the model's name, `[2,N,3,H,W]` in [0,1]: clean, and attacked against
            that model.
        attention (`dict` of `torch.Tensor`): Likewise, `[2,N,h,w]`, in any unit, such as the cosines of
            [`~hf_pmgaft.zero_shot.text_attention`] with the text of the true class.
        predictions (`dict` of `torch.Tensor`): Likewise, `[2,N]`, the predicted classes.
        class_names (`list[str]`): Names by label.
        labels (`list[int]`): N true classes.
        file (`str`): Where the picture goes.
        title (`str`, *optional*): What is written above.
    """
    figure, axes = _panels(len(images), len(labels))
    for row, name in enumerate(images):
        pairs, maps = (tensors[name].detach().float().cpu() for tensors in (images, attention))
        for column, label in enumerate(labels):
            above, below = axes[row, column]
            for view in range(2):
                _show(above[view], pairs[view, column])
                _show_heat(below[view], pairs[view, column], maps[view, column])
                _write_verdict(above[view], 0, "", int(predictions[name][view, column]), label, class_names)
            _write_under_pair(below, f"correlation {_correlation(*maps[:, column]):.2f}")
            if row == 0:
                _write_heading(above, class_names[label])
        _write_row_names(axes[row, 0, :, 0], name)
    title = title or "Where the models look: attention to the text of the true class"
    _write_frame(figure, textwrap.fill(title, max(45, 30 * len(labels))))
    figure.savefig(file, **_PNG)
    return figure


def answer_gallery(
    shown: Mapping[str, tuple[torch.Tensor, Sequence[Sequence[str]]]], file: str | os.PathLike, title: str
) -> Figure:
    """What a model writes about images, clean and attacked; a column per image, two rows per vision tower.

    Args:
        shown (`dict`): By the tower's name the images `[2,N,3,H,W]` in [0,1], clean and attacked, and two lists of N
            texts.
        file (`str`): Where the picture goes.
        title (`str`): What is written above.
    """
    count = next(iter(shown.values()))[0].shape[1]
    figure, axes = _figure(2 * len(shown), count, (2.4 * count + 1, 2.6 * 2 * len(shown) + 0.6))
    for row, (name, (images, texts)) in enumerate(shown.items()):
        for view, kind in enumerate(("clean", "attacked")):
            for column in range(count):
                axis = axes[2 * row + view, column]
                _show(axis, images[view, column])
                axis.set_xlabel(textwrap.fill(texts[view][column], 26), fontsize=8)
            axes[2 * row + view, 0].set_ylabel(f"{_short(name)}\n{kind}", fontsize=9)
    figure.suptitle(textwrap.fill(title, 26 * count), fontsize=10)
    figure.savefig(file, **_PNG)
    return figure


def _curve(axis: Axes, lines: Sequence[Mapping[str, Any]], name: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        style = {"label": name.replace("_", " "), "marker": "." if len(points) < 30 else "", **style}
        axis.plot(*zip(*points, strict=True), **style)


def _common(reports: Mapping[str, RobustnessReport]) -> RobustnessReport:
    """One of the reports, for what they share; raises `ValueError` if they do not share it."""
    if not reports:
        raise ValueError("You passed no reports, so there is nothing to draw. Pass at least one by its name.")
    shared = {
        "attacks": lambda report: [attack_name(spec) for spec in report.protocol["attacks"]],
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
    return ", ".join(attack_name(spec) for spec in report.headline_attacks)


def _radii(report: RobustnessReport, norm: str) -> dict[str, float]:
    """The report's threats that are balls of a norm, by growing radius."""
    threats = {threat_name(spec): spec for spec in report.protocol["attacks"] if norm_of(spec) == norm}
    if not threats:
        known = sorted({threat_name(spec) for spec in report.protocol["attacks"]})
        raise ValueError(
            f"You asked for the accuracy against the {norm} radius, but the reports have the threats {known}. Choose "
            "another norm, or evaluate with attacks of this one."
        )
    radii = {threat: parse_radius(spec["eps"], norm) for threat, spec in threats.items()}
    return dict(sorted(radii.items(), key=lambda item: item[1]))


def _attacks_by_threat(report: RobustnessReport, threats: Sequence[str]) -> str:
    """The attacks of some threats, once if they are the same at every radius."""
    names = {threat: [] for threat in threats}
    for spec in report.protocol["attacks"]:
        threat = threat_name(spec)
        if threat in names:
            names[threat].append(attack_name(spec).replace(f" {threat}", "", 1))
    listed = {threat: ", ".join(attacks) for threat, attacks in names.items()}
    if len(set(listed.values())) == 1:
        return listed[threats[0]]
    return "; ".join(f"{attacks} at {threat}" for threat, attacks in listed.items())


def _accuracies(report: RobustnessReport, threat: str | None = None) -> list[float]:
    """By set, the accuracy under a threat, or without one."""
    return [result.clean_accuracy if threat is None else result.threats[threat] for result in report.sets]


def _mean_interval(report: RobustnessReport, accuracies: Sequence[float]) -> tuple[float, float]:
    """95 % interval, in percent, of the mean over independent sets.

    Their Wilson intervals are joined side by side (MOVER, Donner and Zou, 2012): that of one set is Wilson's, and no
    end leaves 0 to 100.
    """
    spans = [wilson_interval(value, r.num_samples) for value, r in zip(accuracies, report.sets, strict=True)]
    below = math.hypot(*(value - low for value, (low, _) in zip(accuracies, spans, strict=True)))
    above = math.hypot(*(high - value for value, (_, high) in zip(accuracies, spans, strict=True)))
    n = len(spans)
    mean = sum(accuracies) / n
    return 100 * (mean - below / n), 100 * (mean + above / n)


def _label(report: RobustnessReport) -> str:
    """What the rows of a report of one kind are."""
    return report.figures[0] if len(report.figures) == 1 else report.sets[0].kind


def _averaged(report: RobustnessReport) -> str:
    of = "sets" if len(report.figures) == 1 else "figures"
    return report.sets[0].name if len(report.sets) == 1 else f"mean of {len(report.sets)} {of}"


def _line_style(i: int) -> dict[str, str]:
    return {"color": _LINE_COLOURS[i % len(_LINE_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}


def _bars(axis: Axes, reports: Mapping[str, RobustnessReport], key: str) -> None:
    width = 0.8 / len(reports)
    for i, (name, report) in enumerate(reports.items()):
        figures = [(getattr(result, key), result.num_samples) for result in report.sets]
        # The mean has no interval: those of its sets say nothing of other sets.
        spans = [(value, *wilson_interval(value, count)) for value, count in figures] + [3 * (report.mean(key),)]
        values, low, high = 100 * np.array(spans).T
        places = np.array([*range(len(figures)), len(figures) + 0.3]) + (i - (len(reports) - 1) / 2) * width
        whiskers = np.maximum([values - low, high - values], 0)
        style = {"color": _BAR_COLOURS[i % len(_BAR_COLOURS)], "error_kw": {"ecolor": "0.25", "elinewidth": 1}}
        bars = axis.bar(places, values, width, yerr=whiskers, label=name, **style)
        axis.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axis.axvline(len(figures) - 0.35, color="0.8", linewidth=1)
    axis.set(ylim=(0, 108), yticks=range(0, 101, 20))


def _show(axis: Axes, image: torch.Tensor) -> None:
    axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def _show_heat(axis: Axes, image: torch.Tensor, heat: torch.Tensor) -> None:
    """The map `[h,w]`, scaled to its range and resized, over the image in grey."""
    low, high = heat.min(), heat.max()
    scaled = (heat - low) / (high - low).clamp_min(torch.finfo(heat.dtype).tiny)
    resized = F.interpolate(scaled[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    # White is shown as a light grey, through which bright and dark places of the map can be told.
    axis.imshow(image.clamp(0, 1).mean(0).numpy(), cmap="gray", vmin=0, vmax=1.4, interpolation="nearest")
    axis.imshow(resized.numpy(), cmap=_HEAT, vmin=0, vmax=1, alpha=0.7, interpolation="bilinear")
    axis.set(xticks=[], yticks=[])


def _correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Square axes `[rows, columns, 2, 2]`: image above attention, clean beside attacked."""
    from matplotlib.figure import Figure

    panel, gap, line = 1.35, 0.05, 0.24  # in inches
    # Placed by hand, since the layout engine knows no text that spans two panels.
    block = 2 * (panel + line) + 0.1, 2 * panel + gap + 0.3
    height, width = rows * block[0], columns * block[1]
    figure, axes = Figure(figsize=(width, height)), np.empty((rows, columns, 2, 2), dtype=object)
    for row, column, below, right in np.ndindex(axes.shape):
        left = column * block[1] + right * (panel + gap)
        bottom = height - row * block[0] - below * (panel + line) - panel
        box = (left / width, bottom / height, panel / width, panel / height)
        axes[row, column, below, right] = figure.add_axes(box)
    return figure, axes


def _write_frame(figure: Figure, title: str) -> None:
    """The title above all panels, and below them what the colours mean."""
    from matplotlib.cm import ScalarMappable

    width, height = figure.get_size_inches()
    middle = 0.5 - 0.15 / width
    figure.text(middle, 1 + 0.5 / height, title, fontsize=12, ha="center", va="bottom", parse_math=False)
    box = figure.add_axes((middle - 1.3 / width, -0.1 / height, 1.2 / width, 0.1 / height))
    bar = figure.colorbar(ScalarMappable(cmap=_HEAT), cax=box, orientation="horizontal")
    bar.outline.set_visible(False)
    box.set_xticks([])
    for x, text, side in ((-0.05, "least", "right"), (1.05, "most like the class text, within a map", "left")):
        box.text(x, 0.5, text, fontsize=8, ha=side, va="center", transform=box.transAxes)


def _write_heading(axes: Sequence[Axes], name: str) -> None:
    """Class and views above the two images of a column."""
    for axis, view in zip(axes, ("clean", "attacked"), strict=True):
        axis.set_title(view, fontsize=8, color="0.35", pad=3)
    place = {"xy": (1.02, 1), "xycoords": "axes fraction", "xytext": (0, 16), "textcoords": "offset points"}
    axes[0].annotate(_short(name, 34), **place, fontsize=10, ha="center", va="bottom", parse_math=False)


def _write_under_pair(axes: Sequence[Axes], text: str) -> None:
    place = {"xy": (1.02, 0), "xycoords": "axes fraction", "xytext": (0, -9), "textcoords": "offset points"}
    axes[0].annotate(text, **place, fontsize=7.5, color="0.35", ha="center", va="center")


def _write_row_names(axes: Sequence[Axes], name: str) -> None:
    for axis, kind in zip(axes, ("image", "attention"), strict=True):
        axis.set_ylabel(kind, fontsize=8, color="0.35", labelpad=3)
    place = {"xy": (0, 0), "xycoords": "axes fraction", "xytext": (-20, -9), "textcoords": "offset points"}
    style = {"fontsize": 10, "fontweight": "bold", "rotation": 90, "parse_math": False}
    axes[0].annotate(_short(name, 34), **place, **style, ha="right", va="center")


def _write_verdict(axis: Axes, line: int, prefix: str, predicted: int, label: int, class_names: Sequence[str]) -> None:
    text = f"{'✓' if predicted == label else '✗'} {prefix}{_short(class_names[predicted])}"
    place = {"xy": (0.5, 0), "xycoords": "axes fraction", "xytext": (0, -10 - 12 * line), "ha": "center"}
    style = {"fontsize": 8, "family": "DejaVu Sans", "color": _RIGHT if predicted == label else _WRONG}
    axis.annotate(text, **place, **style, textcoords="offset points", va="center", parse_math=False)


def _figure(rows: int, columns: int, size: tuple[float, float], **ratios: Any) -> tuple[Figure, np.ndarray]:
    # No pyplot: it would keep the figure in a global list and choose a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **ratios)


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
