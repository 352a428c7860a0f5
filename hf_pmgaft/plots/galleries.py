"""Pictures of images: clean and attacked, where models look, and what they answer."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..attacks.ball import parse_radius
from .figures import HEAT, correlation, new_figure, save_png, shorten, show_heat, show_image, write_prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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

    Example:
        >>> adversarial = (images + 4 / 255).clamp(0, 1)
        >>> right = {"tiny CLIP": labels.tolist()}
        >>> figure = gallery(images, adversarial, class_names, labels, right, "gallery.png", eps="4/255", columns=2)
        >>> [axis.get_title() for axis in figure.axes[:2]]
        ['red disc', 'green disc']
    """
    clean = clean[:columns].detach().float().cpu()
    adversarial = adversarial[:columns].detach().float().cpu()
    delta = adversarial - clean
    radius = parse_radius(eps, norm) if norm == "linf" else delta.abs().max().item()
    factor = 0.5 / max(radius, 1e-8)

    # Three rows of images
    rows = {"clean": clean, f"perturbation × {factor:.2g}": 0.5 + factor * delta, "adversarial": adversarial}
    figure, axes = new_figure(3, len(clean), (1.7 * len(clean) + 0.5, 5.8 + 0.2 * len(predictions)))
    for axis_row, (name, pixels) in zip(axes, rows.items(), strict=True):
        axis_row[0].set_ylabel(name)
        for axis, image in zip(axis_row, pixels, strict=True):
            show_image(axis, image)

    # Classes above, predictions below
    for column, label in enumerate(labels[: len(clean)]):
        axes[0, column].set_title(shorten(class_names[label]), fontsize=9, parse_math=False)
        for line, (name, predicted) in enumerate(predictions.items()):
            text = class_names[predicted[column]]
            write_prediction(axes[2, column], line, f"{name}: ", text, predicted[column] == label)
    figure.suptitle(
        title or f"Each model against its own attack, {norm} radius {eps} (shown: the last one's)", fontsize=11
    )
    save_png(figure, file)
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
    """Shows where models look: a column per image; per model the image clean and attacked, the attention under it.

    A map is scaled to its own range, resized to the image and laid over it: brightness says where a model looks, not
    how much. Under a pair of maps stands their correlation over the patches; 1 is an attention that the attack does
    not move.

    Args:
        images (`dict` of `torch.Tensor`): By the model's name, `[2,N,3,H,W]` in [0,1]: clean, and attacked against
            that model.
        attention (`dict` of `torch.Tensor`): By the model's name, `[2,N,h,w]`, in any unit, such as the cosines of
            [`~hf_pmgaft.zero_shot.text_attention`] with the text of the true class.
        predictions (`dict` of `torch.Tensor`): By the model's name, `[2,N]`, the predicted classes.
        class_names (`list[str]`): Names by label.
        labels (`list[int]`): N true classes.
        file (`str`): Where the picture goes.
        title (`str`, *optional*): What is written above.

    Example:
        >>> pair = {"tiny CLIP": torch.stack([images[:3], images[:3]])}
        >>> maps = {"tiny CLIP": torch.rand(2, 3, 4, 4)}
        >>> right = {"tiny CLIP": torch.stack([labels[:3], labels[:3]])}
        >>> figure = attention_gallery(pair, maps, right, class_names, labels[:3].tolist(), "attention.png")
        >>> figure.axes[0].get_title()
        'clean'
    """
    figure, axes = _panels(len(images), len(labels))
    for row, name in enumerate(images):
        pairs = images[name].detach().float().cpu()
        maps = attention[name].detach().float().cpu()
        for column, label in enumerate(labels):
            above, below = axes[row, column]
            for view in range(2):
                show_image(above[view], pairs[view, column])
                show_heat(below[view], pairs[view, column], maps[view, column])
                predicted = int(predictions[name][view, column])
                write_prediction(above[view], 0, "", class_names[predicted], predicted == label)
            _write_under_pair(below, f"correlation {correlation(*maps[:, column]):.2f}")
            if row == 0:
                _write_heading(above, class_names[label])
        _write_row_names(axes[row, 0, :, 0], name)

    title = title or "Where the models look: attention to the text of the true class"
    _write_frame(figure, textwrap.fill(title, max(45, 30 * len(labels))))
    save_png(figure, file)
    return figure


def answer_gallery(
    shown: Mapping[str, tuple[torch.Tensor, Sequence[Sequence[str]]]], file: str | os.PathLike, title: str
) -> Figure:
    """Shows what a model writes about images, clean and attacked; a column per image, two rows per vision tower.

    Args:
        shown (`dict`): By the tower's name the images `[2,N,3,H,W]` in [0,1], clean and attacked, and two lists of N
            texts.
        file (`str`): Where the picture goes.
        title (`str`): What is written above.

    Example:
        >>> pair = torch.stack([images[:2], images[:2]])
        >>> shown = {"CLIP": (pair, [["a red disc", "a green disc"], ["a cat", "a green disc"]])}
        >>> figure = answer_gallery(shown, "answers.png", title="What the model sees")
        >>> figure.axes[2].get_xlabel()
        'a cat'
    """
    count = next(iter(shown.values()))[0].shape[1]
    figure, axes = new_figure(2 * len(shown), count, (2.4 * count + 1, 2.6 * 2 * len(shown) + 0.6))
    for row, (name, (images, texts)) in enumerate(shown.items()):
        for view, kind in enumerate(("clean", "attacked")):
            for column in range(count):
                axis = axes[2 * row + view, column]
                show_image(axis, images[view, column])
                axis.set_xlabel(textwrap.fill(texts[view][column], 26), fontsize=8)
            axes[2 * row + view, 0].set_ylabel(f"{shorten(name)}\n{kind}", fontsize=9)
    figure.suptitle(textwrap.fill(title, 26 * count), fontsize=10)
    save_png(figure, file)
    return figure


# ---- Panels of attention ----


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Square axes `[rows, columns, 2, 2]`: image above attention, clean beside attacked."""
    from matplotlib.figure import Figure

    panel, gap, line = 1.35, 0.05, 0.24  # in inches
    block_height = 2 * (panel + line) + 0.1
    block_width = 2 * panel + gap + 0.3
    height = rows * block_height
    width = columns * block_width

    # Placed by hand, since the layout engine knows no text that spans two panels.
    figure = Figure(figsize=(width, height))
    axes = np.empty((rows, columns, 2, 2), dtype=object)
    for row, column, below, right in np.ndindex(axes.shape):
        left = column * block_width + right * (panel + gap)
        bottom = height - row * block_height - below * (panel + line) - panel
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
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), cax=box, orientation="horizontal")
    bar.outline.set_visible(False)
    box.set_xticks([])
    for x, text, side in ((-0.05, "least", "right"), (1.05, "most like the class text, within a map", "left")):
        box.text(x, 0.5, text, fontsize=8, ha=side, va="center", transform=box.transAxes)


def _write_heading(axes: Sequence[Axes], name: str) -> None:
    """Class and views above the two images of a column."""
    for axis, view in zip(axes, ("clean", "attacked"), strict=True):
        axis.set_title(view, fontsize=8, color="0.35", pad=3)
    _write_beside(axes[0], shorten(name, 34), (1.02, 1), (0, 16), fontsize=10, ha="center", va="bottom")


def _write_under_pair(axes: Sequence[Axes], text: str) -> None:
    _write_beside(axes[0], text, (1.02, 0), (0, -9), fontsize=7.5, color="0.35", ha="center", va="center")


def _write_row_names(axes: Sequence[Axes], name: str) -> None:
    """The kinds of pictures, and the model's name, to the left of the two rows of a model."""
    for axis, kind in zip(axes, ("image", "attention"), strict=True):
        axis.set_ylabel(kind, fontsize=8, color="0.35", labelpad=3)
    style = {"fontsize": 10, "fontweight": "bold", "rotation": 90, "ha": "right", "va": "center"}
    _write_beside(axes[0], shorten(name, 34), (0, 0), (-20, -9), **style)


def _write_beside(axis: Axes, text: str, place: tuple[float, float], shift: tuple[float, float], **style: Any) -> None:
    """A text at a place of the axis, from 0 to 1, shifted by some points; dollar signs are no formulas."""
    axis.annotate(
        text, xy=place, xycoords="axes fraction", xytext=shift, textcoords="offset points", parse_math=False, **style
    )
