"""Words as they are written on pictures by Pillow: which a font has, how they break into lines, and their pixels."""

from __future__ import annotations

import io
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..noise import uniform_noise
from ..prompts import prompt_name

READABLE = 6  # pixels of the smallest font that counts as readable
OUTLINE = 1  # pixels around the letters, in black or white
HEIGHTS = tuple(number / 10 for number in range(1, 11))  # shares of an image's height that are proposed
_NO_CHARACTER = "\U0010fffe"  # which no font may have


class Layout(NamedTuple):
    """A text in its lines, and the box that it takes.

    Args:
        lines (`tuple[str]`): The text, broken at its spaces.
        size (`int`): Of the font, in pixels.
        left, top (`int`): Where the box begins, from the start of the first line's baseline.
        width, height (`int`): Of the box, with the outline.
    """

    lines: tuple[str, ...]
    size: int
    left: int
    top: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Pixels of the box."""
        return self.width * self.height


def band_of(height: float, edge: int) -> int:
    """How many rows of an image with so many text may take, at a share of its height.

    Example:
        >>> band_of(0.2, 224)
        44
    """
    return int(height * edge + 1e-6)


def least_height(
    class_names: Sequence[str], size: tuple[int, int], font: str | None = None, least: float = HEIGHTS[0]
) -> float | None:
    """The smallest of `HEIGHTS` from `least` on at which all names can be written; `None` if there is none.

    Args:
        class_names (`list[str]`), font (`str`, *optional*): As of [`check_writable`].
        size (`tuple[int, int]`): Height and width of the images, in pixels.

    Example:
        >>> least_height(["tree frog", "newt"], (40, 40)), least_height(["hippopotamus"], (40, 40))
        (0.2, None)
    """
    edge, width = size
    texts = [prompt_name(name) for name in class_names]
    for height in HEIGHTS:
        band = band_of(height, edge)
        if height >= least and all(lay_out(text, width, band, font) is not None for text in texts):
            return height
    return None


def check_writable(class_names: Sequence[str], size: tuple[int, int], height: float, font: str | None = None) -> None:
    """Raises `ValueError` for class names that cannot be written on images, and says what would do.

    Args:
        class_names (`list[str]`): They are written as they stand in prompts: in lower case, without `_`, `-` and `/`.
        size (`tuple[int, int]`): Height and width of the images, in pixels.
        height (`float`): The largest share of the height that the text takes.
        font (`str`, *optional*): File of the font; Pillow's own if not given.

    Example:
        >>> check_writable(["tree frog", "newt"], (64, 64), height=0.25)
        >>> check_writable(["crème brûlée"], (64, 64), height=0.5)
        Traceback (most recent call last):
        ValueError: You passed class names with the characters èéû, which the font of Pillow has not: ...
        >>> check_writable(["tree frog", "newt"], (32, 24), height=0.2)
        Traceback (most recent call last):
        ValueError: You passed 'tree frog', which has no place in 24 x 6 pixels in letters of 6 pixels, ... Pass
        height=0.5, the least that all of them have place in.
        >>> check_writable(["hippopotamus"], (40, 40), height=0.2)
        Traceback (most recent call last):
        ValueError: You passed 'hippopotamus', ... No height is enough. Attack images that are at least 43 pixels wide,
        or leave the set out.
    """
    edge, width = size
    band = band_of(height, edge)
    missing = sorted({character for name in class_names for character in _missing(prompt_name(name), font)})
    if missing:
        raise ValueError(
            f"You passed class names with the characters {''.join(missing)}, which the font "
            f"{'of Pillow' if font is None else font} has not: boxes would be written in their place. Pass "
            "font=FILE, a font that has them."
        )
    too_long = [name for name in class_names if lay_out(prompt_name(name), width, band, font) is None]
    if too_long:
        raise ValueError(
            f"You passed {too_long[0]!r}, which has no place in {width} x {band} pixels in letters of {READABLE} "
            f"pixels, the smallest that can be read; so do {len(too_long)} of {len(class_names)} class names. "
            f"{_what_would_do(class_names, size, font)}"
        )


@lru_cache(maxsize=8192)
def lay_out(text: str, width: int, band: int, font: str | None = None) -> Layout | None:
    """Lays out a text in the largest letters with which it fits into a box; `None` if there are none to be read.

    Example:
        >>> lay_out("tree frog", width=64, band=16).lines, lay_out("tree frog", width=24, band=16).lines
        (('tree frog',), ('tree', 'frog'))
        >>> lay_out("tree frog", width=24, band=8) is None
        True
    """
    for size in range(band, READABLE - 1, -1):
        lines = _break(text, size, width, font)
        boxes = [_box(line, place * size, size, font) for place, line in enumerate(lines)]
        left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
        right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
        if right - left <= width and bottom - top <= band:
            return _tight(Layout(lines, size, left, top, right - left, bottom - top), font)
    return None


def draw(layout: Layout, font: str | None = None, letters: Sequence[str] | None = None) -> np.ndarray:
    """Draws a text: how much the letters cover of each pixel of its box, and letters with outline, `[2,h,w]`, uint8.

    Args:
        layout (`Layout`): Where the text stands.
        font (`str`, *optional*): As in [`lay_out`].
        letters (`list[str]`, *optional*): Others in place of those of the text, each in the middle of where its own
            stood. What reaches over the box is cut off.

    Example:
        >>> layout = lay_out("newt", width=64, band=16)
        >>> draw(layout).shape == (2, layout.height, layout.width)
        True
    """
    face = _font(font, layout.size)
    masks = []
    for outline in (0, OUTLINE):
        mask = Image.new("L", (layout.width, layout.height))
        pen = ImageDraw.Draw(mask)
        for x, y, text in _pieces(layout, face, letters):
            place = (x - layout.left, y - layout.top)
            pen.text(place, text, fill=255, font=face, anchor="ls", stroke_width=outline, stroke_fill=255)
        masks.append(np.asarray(mask))
    return np.stack(masks)


def random_letters(text: str, seed: int, stream: int) -> list[str]:
    """Draws a lower-case letter for each character of a text that is no space, by the seed.

    Example:
        >>> letters = random_letters("tree frog", seed=3, stream=0)
        >>> len(letters), letters == random_letters("tree frog", seed=3, stream=0)
        (8, True)
    """
    count = len(text.replace(" ", ""))
    draws = uniform_noise(torch.tensor([seed]), (count,), stream)[0]
    return [string.ascii_lowercase[int(draw * 26)] for draw in draws.tolist()]


def colours(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Reads a colour, and says which of black and white stands out from it, both as RGB in [0,1].

    Example:
        >>> colours("white"), colours("blue")
        (((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), ((0.0, 0.0, 1.0), (1.0, 1.0, 1.0)))
    """
    try:
        red, green, blue = (value / 255 for value in ImageColor.getrgb(name)[:3])
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"You passed the colour {name!r}, which is none. Pass a name such as white or red.") from None
    is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
    return (red, green, blue), (0.0,) * 3 if is_light else (1.0,) * 3


def _what_would_do(class_names: Sequence[str], size: tuple[int, int], font: str | None) -> str:
    """The height to pass for class names that have no place at another one, or how wide images must be."""
    height = least_height(class_names, size, font)
    if height is not None:
        return f"Pass height={height:g}, the least that all of them have place in."
    words = {word for name in class_names for word in prompt_name(name).split()}
    boxes = [_box(word, 0, READABLE, font) for word in words]
    needed = max(size[1], *(right - left for left, _, right, _ in boxes))
    if needed == size[1]:
        return "No height is enough. Attack larger images, or leave the set out."
    return f"No height is enough. Attack images that are at least {needed} pixels wide, or leave the set out."


def _tight(layout: Layout, font: str | None) -> Layout:
    """The layout with the smallest box that holds all of its ink."""
    ink = draw(layout, font)[1] > 0
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return layout._replace(
        left=layout.left + int(columns[0]),
        top=layout.top + int(rows[0]),
        width=int(columns[-1] - columns[0]) + 1,
        height=int(rows[-1] - rows[0]) + 1,
    )


def _pieces(layout: Layout, face: ImageFont.FreeTypeFont, letters: Sequence[str] | None) -> list[tuple[int, int, str]]:
    """What is drawn at which place of the baseline: lines, or letters one by one."""
    lines = [(0, place * layout.size, line) for place, line in enumerate(layout.lines)]
    if letters is None:
        return lines

    pieces, others = [], iter(letters)
    for _, y, line in lines:
        for place, letter in enumerate(line):
            if letter == " ":
                continue
            other = next(others)
            room = face.getlength(letter) - face.getlength(other)
            pieces.append((round(face.getlength(line[:place]) + room / 2), y, other))
    return pieces


def _break(text: str, size: int, width: int, font: str | None) -> tuple[str, ...]:
    """The lines of a text, each with as many words as have room in it."""
    face = _font(font, size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) + 2 * OUTLINE <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return tuple(lines)


def _box(line: str, y: int, size: int, font: str | None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a line with its outline, whose baseline begins at `(0, y)`."""
    left, top, right, bottom = _font(font, size).getbbox(line, anchor="ls", stroke_width=OUTLINE)
    return int(np.floor(left)), int(np.floor(top)) + y, int(np.ceil(right)), int(np.ceil(bottom)) + y


@lru_cache(maxsize=256)
def _missing(text: str, font: str | None) -> str:
    """Characters of a text that a font would show as the box for what it lacks, or not at all."""
    face = _font(font, 32)
    box = face.getmask(_NO_CHARACTER)

    def is_missing(character: str) -> bool:
        mask = face.getmask(character)
        return not any(mask) or (mask.size == box.size and bytes(mask) == bytes(box))

    return "".join(character for character in text if character != " " and is_missing(character))


@lru_cache(maxsize=512)
def _font(font: str | None, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size, laid out without ligatures so that every machine draws the same."""
    if font is None:
        try:
            return ImageFont.load_default(size)
        except (TypeError, ImportError, OSError) as error:
            raise ValueError(
                "Pillow has no font of its own that can be scaled. Update it (10.1 or later, with FreeType), or pass "
                "font=FILE."
            ) from error
    try:
        return ImageFont.truetype(_bytes_of(font), size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(
            f"You passed the font {font!r}, which cannot be read ({error}). Pass a font's file."
        ) from error


def _bytes_of(font: str) -> io.BytesIO:
    """A font's file, of which Pillow would look for one of the same name elsewhere."""
    with open(font, "rb") as file:
        return io.BytesIO(file.read())
