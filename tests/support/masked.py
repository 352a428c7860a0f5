"""A small set of images with masks: a disc or square of a colour on grey, whose mask is exact."""

from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from support.tiny import CLASS_NAMES

NAMES = ["background", *CLASS_NAMES]
COLOURS = [(210, 40, 40), (40, 180, 60), (50, 70, 210), (220, 200, 40)]
FEATURES = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})


def draw_scene(label: int, height: int = 20, width: int = 24) -> tuple[Image.Image, Image.Image]:
    """An image and its mask: 0 around, `label` + 1 in the figure."""
    y, x = np.mgrid[:height, :width] - np.array([height // 2, width // 2 + label])[:, None, None]
    figure = x**2 + y**2 < 36 if label < 2 else (abs(x) < 6) & (abs(y) < 6)
    pixels = np.full((height, width, 3), 200, np.uint8)
    pixels[figure] = COLOURS[label]
    return Image.fromarray(pixels), Image.fromarray(np.where(figure, label + 1, 0).astype(np.uint8))


def make_masked(size: int = 8, sizes=((20, 24),)) -> datasets.Dataset:
    """Rows of all classes in turn, and of all sizes in turn."""
    pairs = [draw_scene(i % 4, *sizes[i % len(sizes)]) for i in range(size)]
    columns = {"image": [pair[0] for pair in pairs], "mask": [pair[1] for pair in pairs]}
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def write_masked(folder: Path, size: int = 4, edge: int = 48) -> Path:
    """A folder of images and masks of one name, with the names of the classes beside them."""
    for row in range(size):
        for part, picture in zip(("images", "masks"), draw_scene(row % 4, edge, edge), strict=True):
            (folder / part).mkdir(parents=True, exist_ok=True)
            picture.save(folder / part / f"{row}.png")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return folder
