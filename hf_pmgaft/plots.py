"""Pictures of a run: training curves, accuracies per set, and a gallery of attacked images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .attacks import parse_radius
from .evaluation import RobustnessReport, attack_name, wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_TERMS = {"grad_norm", "learning_rate", "epoch", "step", "num_input_tokens_seen"}
_RIGHT, _WRONG = "#1a7f37", "#b42318"


def training_curves(log_history: Sequence[Mapping[str, Any]], file: str | os.PathLike) -> Figure:
    """Loss terms, accuracies and learning rate over the steps, as one PNG.

    Args:
        log_history (list of `dict`): `trainer.state.log_history`.
        file (`str`): Where the picture goes.
    """
    lines = [line for line in log_history if "loss" in line]
    evaluations = [line for line in log_history if "eval_mean_robust_accuracy" in line]
    names = sorted({name for line in lines for name in line} - _NO_TERMS)
    accuracies = [name for name in names if name.endswith("accuracy")]
    figure, axes = _figure(3, (13, 4))
    _curves(axes[0], lines, [name for name in names if name not in accuracies], "loss and its unweighted terms")
    _curves(axes[1], lines, accuracies, "accuracy on training batches")
    for name in ("eval_mean_clean_accuracy", "eval_mean_robust_accuracy"):
        if evaluations:
            steps, values = [line["step"] for line in evaluations], [line[name] for line in evaluations]
            axes[1].plot(steps, values, "o", label=name.removeprefix("eval_"))
    axes[1].set_ylim(0, 1)
    _curves(axes[2], lines, ["learning_rate"], "learning rate")
    for axis in axes:
        axis.set_xlabel("step")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    return _save(figure, file)


def robustness_bars(reports: Mapping[str, RobustnessReport], file: str | os.PathLike) -> Figure:
    """Clean and robust accuracy per set and their means, one group of bars per report; 95 % intervals on robust ones.

    Args:
        reports (`dict` of `RobustnessReport`): By name, such as `{"before": ..., "after": ...}`, of one protocol.
        file (`str`): Where the picture goes.
    """
    first = next(iter(reports.values()))
    ticks = [*(result.name for result in first.sets), "mean"]
    figure, axes = _figure(2, (max(8.0, 1.1 * len(ticks)), 7), vertical=True)
    attack = ", ".join(attack_name(spec) for spec in first.protocol["attacks"])
    width = 0.8 / len(reports)
    for axis, key, title in zip(
        axes, ("clean_accuracy", "robust_accuracy"), ("clean", f"robust: {attack}"), strict=True
    ):
        for i, (name, report) in enumerate(reports.items()):
            values = [getattr(result, key) for result in report.sets] + [report.mean(key)]
            positions = [x + (i - (len(reports) - 1) / 2) * width for x in range(len(ticks))]
            axis.bar(positions, [100 * value for value in values], width, label=name)
            spans = [wilson_interval(getattr(r, key), r.num_samples) for r in report.sets]
            errors = [[100 * (v - low), 100 * (high - v)] for v, (low, high) in zip(values, spans, strict=False)]
            if errors:
                axis.errorbar(
                    positions[:-1],
                    [100 * value for value in values[:-1]],
                    [[max(0.0, e[0]) for e in errors], [max(0.0, e[1]) for e in errors]],
                    fmt="none",
                    ecolor="0.3",
                    elinewidth=1,
                )
        axis.set_xticks(range(len(ticks)), ticks, rotation=20)
        axis.set_ylim(0, 100)
        axis.set_ylabel("accuracy in %")
        axis.set_title(title, fontsize=10)
    axes[0].legend()
    return _save(figure, file)


def gallery(
    clean: torch.Tensor,
    adversarial: torch.Tensor,
    class_names: Sequence[str],
    labels: Sequence[int],
    predictions: Mapping[str, Sequence[int]],
    file: str | os.PathLike,
    eps: str | float,
) -> Figure:
    """Clean image, magnified perturbation and adversarial image, a column each, with what each model makes of it.

    Args:
        clean, adversarial (`torch.Tensor`): `[N,3,H,W]` in [0,1].
        class_names (`list[str]`): Names by label.
        labels (`list[int]`): True classes.
        predictions (`dict` of `list[int]`): Predicted classes under attack, by the model's name.
        file (`str`): Where the picture goes.
        eps (`str` or `float`): Radius; the perturbation is scaled so that it spans black to white.
    """
    factor = 0.5 / max(parse_radius(eps), 1e-8)
    rows = {
        "clean": clean,
        f"perturbation x {factor:.0f}": ((adversarial - clean) * factor + 0.5).clamp(0, 1),
        "adversarial": adversarial,
    }
    figure, axes = _figure((len(rows), len(clean)), (1.7 * len(clean) + 0.6, 6.4))
    for axis_row, (title, pixels) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(axis_row, pixels, strict=True):
            axis.imshow(image.permute(1, 2, 0).float().cpu().numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        axis_row[0].set_ylabel(title)
    for column, label in enumerate(labels):
        axes[0][column].set_title(_short(class_names[label]), fontsize=8)
        for line, (name, predicted) in enumerate(predictions.items()):
            right = predicted[column] == label
            text = f"{name}: {_short(class_names[predicted[column]])} {'✓' if right else '✗'}"
            place = {"xy": (0.5, -0.12 - 0.14 * line), "xycoords": "axes fraction", "ha": "center", "va": "center"}
            axes[-1][column].annotate(text, fontsize=7, color=_RIGHT if right else _WRONG, **place)
    figure.suptitle(f"Each model against its own attack, radius {eps}", fontsize=10)
    return _save(figure, file)


def _figure(panels: int | tuple[int, int], size: tuple[float, float], vertical: bool = False):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = panels if isinstance(panels, tuple) else (panels, 1) if vertical else (1, panels)
    axes = figure.subplots(*grid, squeeze=False)
    return figure, axes if isinstance(panels, tuple) else axes.ravel()


def _curves(axis, lines, names, title) -> None:
    for name in names:
        points = [(line["step"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "", label=name.replace("_", " "))
    axis.set_title(title, fontsize=10)


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _save(figure: Figure, file: str | os.PathLike) -> Figure:
    figure.savefig(file, dpi=130)
    return figure
