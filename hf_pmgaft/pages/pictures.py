"""Pictures of a page, as data that stands in it."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import torch
from PIL import Image

from ..data.evaluation_sets import ZeroShotDataset
from ..evaluation.examples import Example
from ..evaluation.report import RobustnessReport
from ..plots import report_pictures
from ..plots.segmentation import class_colour, coloured

LARGEST = 160  # pixels along an edge of an example, to which larger ones are made smaller
EXACT = 64  # up to which they are stored without loss
GAP = 4  # pixels between the panels of an example
CHARTS = {
    "bars": "Bars: clean and robust figures of each set, and their mean",
    "curve": "Curve: the mean over the sets against the radius of the attack",
    "clean_against_robust": "Scatter: clean against robust figures, a point for each report",
}


@dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Args:
        source (`str`): As data.
        alt (`str`): What it shows, for who does not see it.
        panels (`list[str]`): What stands side by side in it.
        classes (`dict[str, str]`): By the name of a class its colour.
    """

    source: str
    alt: str
    panels: Sequence[str] = ()
    classes: Mapping[str, str] = field(default_factory=dict)


def charts_of(reports: Mapping[str, RobustnessReport]) -> list[Picture]:
    """Bars, curves and points of some reports, as matplotlib draws them. Their figures stand in tables, too."""
    return [
        chart_of(CHARTS[name if name in CHARTS else name.partition("_")[0]], draw)
        for name, draw in report_pictures(reports).items()
    ]


def chart_of(title: str, draw: Callable[[BinaryIO], object]) -> Picture:
    """What is drawn into a file, as a picture whose figures stand in tables of the page, too."""
    file = io.BytesIO()
    draw(file)
    return Picture(_as_data(file.getvalue(), "png"), f"{title}. Its figures stand in the tables of this page.")


def picture_of(example: Example) -> Picture:
    """An example as one picture: clean image, perturbation, attacked image; of segmentation image and masks.

    Example:
        >>> example = Example("food", 3, "FGSM ce linf 4/255", True, images[:2], "pear", ("pear", "ball"))
        >>> picture = picture_of(example)
        >>> picture.source[:22], picture.panels[0]
        ('data:image/png;base64,', 'clean')
    """
    clean, attacked = example.images.float()
    title = f"the image in row {example.row} of {example.dataset}"
    if example.masks is None:
        return picture_of_attack(clean, attacked, title)

    mask, seen, seen_attacked = map(coloured, example.masks)
    panels = {"image": clean, "mask": mask, "seen clean": seen, "seen attacked": seen_attacked}
    names = example.class_names or {}
    classes = {name: _hex(class_colour(number)) for number, name in names.items()}
    return replace(_side_by_side(panels, title, is_exact=True), classes=classes)


def picture_of_attack(clean: torch.Tensor, attacked: torch.Tensor, title: str) -> Picture:
    """An image `[3,H,W]` in [0,1], its perturbation and the attacked image.

    Example:
        >>> picture_of_attack(images[0], images[0], "the image in row 0").panels[2]
        'attacked'
    """
    delta = attacked - clean
    factor = 0.5 / delta.abs().max().clamp_min(1e-8).item()
    panels = {"clean": clean, f"perturbation × {factor:.2g}": 0.5 + factor * delta, "attacked": attacked}
    return _side_by_side(panels, title, is_exact=False)


def _side_by_side(panels: Mapping[str, torch.Tensor], title: str, is_exact: bool) -> Picture:
    alt = f"Side by side, of {title}: {', '.join(panels)}"
    return Picture(_strip(list(panels.values()), is_exact), alt, list(panels))


def picture_of_row(data: ZeroShotDataset, row: int) -> Picture:
    """A row of a set as a model sees it, with the name of its class.

    Example:
        >>> picture_of_row(ZeroShotDataset(dataset, processor, name="food"), row=2).alt
        'blue square, row 2 of food'
    """
    example = data[row]
    truth = data.class_names[int(example["labels"])]
    source = _strip([example["images"].float()], is_exact=False)
    return Picture(source, alt=f"{truth}, row {row} of {data.name}", panels=[f"{truth}, row {row}"])


def _strip(panels: Sequence[torch.Tensor], is_exact: bool) -> str:
    """Panels `[3,H,W]` of one size beside each other, as data."""
    height, width = panels[0].shape[-2:]
    scale = min(1.0, LARGEST / max(height, width))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))

    strip = Image.new("RGB", (len(panels) * (size[0] + GAP) - GAP, size[1]), "white")
    for place, panel in enumerate(panels):
        pixels = panel.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels)
        if image.size != size:
            image = image.resize(size, Image.Resampling.NEAREST if is_exact else Image.Resampling.LANCZOS)
        strip.paste(image, (place * (size[0] + GAP), 0))

    kind = "png" if max(size) <= EXACT else "webp"
    file = io.BytesIO()
    strip.save(file, kind, **({} if kind == "png" else {"quality": 80}))
    return _as_data(file.getvalue(), kind)


def _as_data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _hex(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)
