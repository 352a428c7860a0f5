"""Pictures of a run, written as PNG and returned as figures: training curves, accuracies per set, a gallery."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .attacks import parse_radius
from .intervals import wilson_interval
from .report import RobustnessReport
from .threats import attack_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NO_TERMS = {"grad_norm", "learning_rate", "epoch", "step", "num_input_tokens_seen"}
_EVAL_MEANS = {"eval_mean_clean_accuracy": ("o", "tab:blue"), "eval_mean_robust_accuracy": ("D", "tab:red")}
_ACCURACY_COLOURS = {"clean_accuracy": "tab:blue", "adversarial_accuracy": "tab:red"}
_BAR_COLOURS = ("#a9b8c9", "#2463a6", "#d9822b", "#4c9a5a", "#8a5fb0")
_PNG = {"format": "png", "dpi": 130, "bbox_inches": "tight"}
_RIGHT, _WRONG = "#1a7f37", "#b42318"


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
    """Clean and robust accuracy per set, with 95 % intervals, and their means; a panel each, a bar per report.

    Args:
        reports (`dict` of `RobustnessReport`): By name, such as `{"before": ..., "after": ...}`; the same attacks on
            the same sets.
        file (`str`): Where the picture goes.

    Raises:
        ValueError: if the reports' attacks or sets differ.
    """
    names, attack = _common(reports)
    figure, ((clean,), (robust,)) = _figure(2, 1, (max(8.0, 1.1 * len(names) + 1), 7))
    _bars(clean, reports, "clean_accuracy")
    _bars(robust, reports, "robust_accuracy")
    for axis, title in ((clean, "Clean accuracy"), (robust, f"Robust accuracy under {attack}")):
        axis.set_title(title)
        axis.set_xticks([*range(len(names)), len(names) + 0.3], [*names, "mean"], rotation=20 if len(names) > 6 else 0)
    figure.legend(*clean.get_legend_handles_labels(), ncols=len(reports), loc="outside upper right")
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
            axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for column, label in enumerate(labels[: len(clean)]):
        axes[0, column].set_title(_short(class_names[label]), fontsize=9, parse_math=False)
        verdicts = {name: predicted[column] for name, predicted in predictions.items()}
        _write_verdicts(axes[2, column], verdicts, label, class_names)
    title = title or f"Each model against its own attack, {norm} radius {eps} (shown: the last one's)"
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, **_PNG)
    return figure


def _curve(axis: Axes, lines: Sequence[Mapping[str, Any]], name: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        style = {"label": name.replace("_", " "), "marker": "." if len(points) < 30 else "", **style}
        axis.plot(*zip(*points, strict=True), **style)


def _common(reports: Mapping[str, RobustnessReport]) -> tuple[list[str], str]:
    """Names of the sets and of the attacks that all reports share."""
    kinds = [([s.name for s in r.sets], ", ".join(map(attack_name, r.protocol["attacks"]))) for r in reports.values()]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(f"The reports differ in sets or attacks: {kinds}. Pass reports of one protocol.")
    return kinds[0]


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
    axis.set(ylim=(0, 108), yticks=range(0, 101, 20), ylabel="accuracy in %")


def _write_verdicts(axis: Axes, verdicts: Mapping[str, int], label: int, class_names: Sequence[str]) -> None:
    for line, (name, predicted) in enumerate(verdicts.items()):
        text = f"{'✓' if predicted == label else '✗'} {name}: {_short(class_names[predicted])}"
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
