"""Pictures of segmentation: images, their masks, and what each model makes of them, clean and attacked."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .figures import new_figure, save_png, shorten, show_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORED_GREY = 0.6  # of pixels that count nowhere
HUE_STEP = 0.6180339887498949  # from one class to the next, so that neighbours in the list look different


def segmentation_gallery(
    images: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    predictions: Mapping[str, Sequence[torch.Tensor]],
    class_names: Sequence[str],
    file: str | os.PathLike,
    *,
    title: str | None = None,
) -> Figure:
    """A column per image: the image, its mask, and a row for each prediction; below, which colour is which class.

    Args:
        images (list of `torch.Tensor`): `[3,H,W]` in [0,1], of any sizes.
        masks (list of `torch.Tensor`): Right classes `[H,W]`; negative where pixels are ignored, which is grey.
        predictions (`dict`): By name, such as `"original, attacked"`, the predicted classes `[H,W]` of each image.
        class_names (`list[str]`): Names by number.
        file (`str`): Where the picture goes.
        title (`str`, *optional*): What is written above.

    Raises:
        ValueError: if there are not as many masks or predictions as images.

    Example:
        >>> masks = torch.zeros(2, 16, 16, dtype=torch.long)
        >>> attacked = {"CLIP, attacked": [masks[0] + 1, masks[1]]}
        >>> figure = segmentation_gallery(images[:2], masks, attacked, class_names, "segmentation.png")
        >>> [axis.get_ylabel() for axis in figure.axes[::2]]
        ['image', 'mask', 'CLIP, attacked']
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['red disc', 'green disc']
    """
    for name, maps in {"masks": masks, **predictions}.items():
        if len(maps) != len(images):
            raise ValueError(f"You passed {len(images)} images and {len(maps)} of {name!r}. Pass one for each image.")

    rows = {"mask": masks, **predictions}
    size = (1.7 * len(images) + 0.5, 1.75 * (1 + len(rows)) + 0.6)
    figure, axes = new_figure(1 + len(rows), len(images), size)

    axes[0, 0].set_ylabel("image")
    for axis, image in zip(axes[0], images, strict=True):
        show_image(axis, image.detach().float().cpu())
    shown: set[int] = set()
    for axis_row, (name, maps) in zip(axes[1:], rows.items(), strict=True):
        axis_row[0].set_ylabel("\n".join(textwrap.wrap(name, 18)), parse_math=False)
        for axis, classes in zip(axis_row, maps, strict=True):
            classes = classes.cpu()
            show_image(axis, coloured(classes))
            shown |= set(classes.unique().tolist())

    _draw_legend(figure, sorted(number for number in shown if number >= 0), class_names)
    if title:
        figure.suptitle(textwrap.fill(title, max(30, 22 * len(images))), fontsize=10)
    save_png(figure, file)
    return figure


def coloured(classes: torch.Tensor) -> torch.Tensor:
    """Class numbers `[H,W]` as an image `[3,H,W]`, grey where they are negative.

    Example:
        >>> coloured(torch.tensor([[0, -1]])).shape
        torch.Size([3, 1, 2])
    """
    image = torch.full((3, *classes.shape), IGNORED_GREY)
    for number in classes.unique().tolist():
        if number >= 0:
            image[:, classes == number] = torch.tensor(class_colour(number), dtype=torch.float32)[:, None]
    return image


def class_colour(number: int) -> np.ndarray:
    """The colour of a class, the same in every picture: hues far apart, in three shades; red, green, blue in [0,1].

    Example:
        >>> class_colour(0).round(2).tolist()
        [0.9, 0.22, 0.22]
    """
    from matplotlib.colors import hsv_to_rgb

    return hsv_to_rgb((number * HUE_STEP % 1, (0.75, 0.45, 0.9)[number % 3], (0.9, 0.95, 0.6)[number % 3]))


def _draw_legend(figure: Figure, numbers: Sequence[int], class_names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=class_colour(number), label=shorten(class_names[number])) for number in numbers]
    legend = figure.legend(handles=patches, loc="outside lower center", ncols=min(6, max(1, len(patches))), fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
