"""Pictures of one image under attack: what a model saw before and after, and how its margin fell."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..evaluation.attacked_image import AttackedImage
from .figures import (
    Place,
    correlation,
    line_style,
    new_figure,
    open_frame,
    save_png,
    shorten,
    show_heat,
    show_image,
    write_prediction,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 2.4  # inches


def attacked_picture(attacked: AttackedImage, file: Place, *, model_name: str) -> Figure:
    """Shows an image clean, its perturbation, and the adversarial image; below, where the model looks in both.

    Under an image stands what the model takes it for, under two maps of attention their correlation over the patches.
    An encoder without patch tokens has no maps.

    Args:
        attacked (`AttackedImage`): The image, on levels of 8 bits.
        file: Where the picture goes.
        model_name (`str`): What the model is called.

    Example:
        >>> from hf_pmgaft.evaluation import attack_image
        >>> attacked = attack_image(model, processor, dataset[1]["image"], class_names, "fgsm,eps=8/255")
        >>> figure = attacked_picture(attacked, "attacked.png", model_name="tiny CLIP")
        >>> [axis.get_title() for axis in figure.axes[:3]]
        ['clean', 'perturbation × 16', 'adversarial']
    """
    clean, adversarial = attacked.images
    factor = attacked.magnification
    maps = (attacked.before.attention, attacked.after.attention)
    has_maps = maps[0] is not None and maps[1] is not None

    rows = 2 if has_maps else 1
    figure, axes = new_figure(rows, 3, (3 * PANEL, rows * (PANEL + 0.35) + 0.6))
    panels = {
        "clean": clean,
        f"perturbation × {factor:.2g}": 0.5 + factor * (adversarial - clean),
        "adversarial": adversarial,
    }
    for axis, (title, pixels) in zip(axes[0], panels.items(), strict=True):
        show_image(axis, pixels)
        axis.set_title(title, fontsize=10)
    for axis, seen in ((axes[0, 0], attacked.before), (axes[0, 2], attacked.after)):
        share = f"{seen.probabilities[seen.prediction]:.0%} "
        write_prediction(axis, 0, share, seen.prediction, seen.prediction == attacked.label)

    if has_maps:
        show_heat(axes[1, 0], clean, maps[0].float())
        show_heat(axes[1, 2], adversarial, maps[1].float())
        _describe_maps(axes[1, 1], attacked.label, correlation(maps[0].float(), maps[1].float()))

    figure.suptitle(textwrap.fill(f"{model_name}: {_title_of(attacked)}", 62), fontsize=11, parse_math=False)
    save_png(figure, file)
    return figure


def margin_curves(attacked: Mapping[str, AttackedImage], file: Place) -> Figure:
    """Draws how the margin of each model goes over the forward passes of an attack, with the rounded image at the end.

    Above 0 a model stands; below, the attack has what it wants. Walks with several starts show one after the other.

    Args:
        attacked (`dict` of `AttackedImage`): By the model's name what one attack made of one image.
        file: Where the picture goes.

    Example:
        >>> from hf_pmgaft.evaluation import attack_image
        >>> attacked = attack_image(model, processor, dataset[1]["image"], class_names, "pgd,eps=8/255,num_steps=5")
        >>> figure = margin_curves({"tiny CLIP": attacked}, "margins.png")
        >>> len(figure.axes[0].lines[0].get_ydata()) == len(attacked.margins)
        True
    """
    figure, ((axis,),) = new_figure(1, 1, (6.5, 3.4))
    for number, (name, image) in enumerate(attacked.items()):
        style = line_style(number)
        passes = range(1, len(image.margins) + 1)
        axis.plot(passes, image.margins, label=name, color=style["color"], linewidth=1.5)
        axis.plot(passes[-1:], image.margins[-1:], **style, linestyle="", markersize=6)

    first = next(iter(attacked.values()))
    axis.axhline(0, color="0.4", linewidth=1, linestyle="--")
    axis.set_xlabel("forward pass of the attack; the marker is the 8-bit image")
    lead = "right class over the best other" if first.target is None else "best other class over the target"
    axis.set_ylabel(f"margin in logits:\n{lead}")
    axis.set_title(textwrap.fill(_title_of(first), 70), fontsize=10, parse_math=False)
    open_frame(axis)
    axis.legend(fontsize=8)
    save_png(figure, file)
    return figure


def _title_of(attacked: AttackedImage) -> str:
    if attacked.target is None:
        return attacked.attack.name
    return f"{attacked.attack.name}, towards {shorten(attacked.target, 30)!r}"


def _describe_maps(axis: Axes, label: str, likeness: float) -> None:
    """What the two maps beside it are."""
    axis.set_axis_off()
    text = f"attention to the text of {shorten(label, 30)!r}"
    lines = [textwrap.fill(text, 22), "bright: most like it, within a map", f"correlation {likeness:.2f}"]
    axis.text(
        0.5,
        0.5,
        "\n\n".join(textwrap.fill(line, 22) for line in lines),
        fontsize=9,
        color="0.25",
        ha="center",
        va="center",
        transform=axis.transAxes,
        parse_math=False,
    )
