"""A typographic attack: the name of a wrong class is written on the picture (Goh et al., Distill 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..modes import at_least_float32, frozen
from ..noise import uniform_noise
from ..prompts import prompt_name
from ..registry import check_choice, check_count
from .inputs import check_classes, check_inputs, check_logits, check_not_nan
from .lettering import band_of, check_writable, colours, draw, lay_out, random_letters
from .losses import correct, margin

LETTERS = ("random", "word")
# Streams of an image's seed
_WORDS, _PLACES, _RANDOM = 940, 20_000, 60_000


def typographic(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    class_names: Sequence[str],
    height: float = 0.2,
    words: int = 4,
    places: int = 3,
    letters: str = "word",
    colour: str = "white",
    font: str | None = None,
    seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Writes names of wrong classes on each image, and keeps what is misclassified first, or else comes nearest to it.

    A name stands as in prompts, in lower case, in the largest letters with which it fits into the image's width and a
    share of its height, with an outline of one pixel in black or white. It breaks at its spaces if that makes it
    larger. Which names and where follows from the image's seed: the names are drawn among those that read differently
    from the true one, the places uniformly among those where the text is whole.

    Args:
        classifier (`Callable`): Images in [0,1] `[B,3,H,W]` -> logits `[B,K]`. No gradient is taken.
        images (`torch.Tensor`), labels (`torch.Tensor`): `[B,3,H,W]` in [0,1] and `[B]`.
        class_names (`list[str]`): One per class.
        height (`float`): The largest share of the image's height that the text takes, above 0 and up to 1.
        words (`int`): Names that are tried, all of them if there are fewer.
        places (`int`): Places that are tried for each of them.
        letters (`str`): `"word"`; or `"random"`, which writes random letters in the place of each name, in the same
            size, and so tells reading from covering.
        colour (`str`): Of the letters, a name that Pillow knows.
        font (`str`, *optional*): File of the font; Pillow's own, which has the letters of English alone, if not given.
            Characters are set side by side, so that scripts that join them are not written as they should be.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64; 0, 1, 2, ... if not given.

    Raises:
        ValueError: for a name with characters that the font lacks, or that has no place in letters of 6 pixels.

    Example:
        >>> images, labels = torch.full((1, 3, 32, 32), 0.5), torch.tensor([0])
        >>> def classifier(images):
        ...     return torch.stack([images.amin((1, 2, 3)), 0.2 - images.amin((1, 2, 3))], dim=1)
        >>> adversarial = typographic(classifier, images, labels, class_names=["frog", "newt"], height=0.5)
        >>> written = (adversarial != images).any(dim=1)[0]
        >>> 0 < int(written.any(dim=1).sum()) <= 16  # rows
        True
    """
    written = write_words(
        classifier,
        images,
        labels,
        class_names=class_names,
        height=height,
        words=words,
        places=places,
        letters=letters,
        colour=colour,
        font=font,
        seeds=seeds,
    )
    return written.images


class Written(NamedTuple):
    """Images that something is written on.

    Args:
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1].
        classes (`torch.Tensor`): `[B]`, int64: whose names stand on them, or in whose place random letters do.
        covered (`torch.Tensor`): `[B]`: the share of the pixels that lies in the text's box.
    """

    images: torch.Tensor
    classes: torch.Tensor
    covered: torch.Tensor


def write_words(
    classifier: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    class_names: Sequence[str],
    height: float = 0.2,
    words: int = 4,
    places: int = 3,
    letters: str = "word",
    colour: str = "white",
    font: str | None = None,
    seeds: torch.Tensor | None = None,
) -> Written:
    """As [`typographic`], and tells what stands on each image and how much of it that covers.

    Example:
        >>> def classifier(images):  # which nothing fools
        ...     return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)
        >>> images, labels = torch.full((1, 3, 32, 32), 0.5), torch.tensor([0])
        >>> written = write_words(classifier, images, labels, class_names=["frog", "newt"], height=0.5)
        >>> written.classes.tolist(), written.covered.item() < 0.5
        ([1], True)
    """
    images, labels, seeds = check_inputs(images, labels, seeds)
    check_typography(height, letters, colour)
    for name, value in {"words": words, "places": places}.items():
        check_count(name, value)
    if not class_names:
        raise ValueError("You passed no class names, which this attack writes. Pass class_names, one per class.")
    if images.shape[1] != 3:
        raise ValueError(f"You passed images of {images.shape[1]} channels, but letters have a colour. Pass three.")
    band, width = band_of(height, images.shape[-2]), images.shape[-1]
    check_classes(labels, len(class_names))
    check_writable(class_names, images.shape[-2:], height, font)

    adversarial = images.detach().clone()
    classes, covered = labels.clone(), torch.zeros(len(images), device=images.device)
    nearest = torch.full((len(images),), -torch.inf, device=images.device)
    choices = _wrong_classes(labels, seeds, class_names, words)
    rows = torch.arange(len(images), device=images.device)  # of the images that still stand
    with frozen(classifier), torch.no_grad():
        for number, place in ((number, place) for number in range(choices.shape[1]) for place in range(places)):
            if not len(rows):
                break
            texts = [prompt_name(class_names[i]) for i in choices[rows, number].tolist()]
            areas = [lay_out(text, width, band, font).area for text in texts]
            masks = _masks(texts, images[rows], seeds[rows], band, (number, number * places + place), letters, font)
            points = _paint(images[rows], masks, colour)
            logits = at_least_float32(check_logits(classifier(points), points))
            check_not_nan(logits)

            loss = margin(logits, labels[rows])
            stands = correct(logits, labels[rows])
            kept = (loss > nearest[rows]) | ~stands
            adversarial[rows[kept]] = points[kept]
            classes[rows[kept]] = choices[rows, number][kept]
            covered[rows[kept]] = covered.new_tensor(areas)[kept] / images[0, 0].numel()
            nearest[rows[kept]] = loss[kept].to(nearest.dtype)
            rows = rows[stands]
    return Written(adversarial, classes, covered)


def check_typography(height: float, letters: str, colour: str) -> None:
    """Raises `ValueError` for a share of the height that is none, and for letters or a colour that there are not.

    Example:
        >>> check_typography(1.5, "word", "white")
        Traceback (most recent call last):
        ValueError: You passed height=1.5, which is no share of an image's height. Pass a number above 0 and up to 1.
    """
    if isinstance(height, bool) or not isinstance(height, (int, float)) or not 0 < height <= 1:
        raise ValueError(
            f"You passed height={height!r}, which is no share of an image's height. Pass a number above 0 and up to 1."
        )
    check_choice("letters", letters, LETTERS)
    colours(colour)


def _wrong_classes(labels: torch.Tensor, seeds: torch.Tensor, class_names: Sequence[str], count: int) -> torch.Tensor:
    """Classes `[B,count]` of each image whose names read differently from its own, drawn by its seed."""
    texts = [prompt_name(name) for name in class_names]
    places = {text: place for place, text in reversed(list(enumerate(texts)))}
    if len(places) < 2:
        raise ValueError(f"You passed {len(texts)} class names that all read {texts[0]!r}, so none is wrong to write.")
    first = torch.tensor([places[text] for text in texts], device=labels.device)

    # Of names that read the same, the first one is drawn.
    draws = uniform_noise(seeds, (len(texts),), _WORDS)
    is_own = first == first[labels].unsqueeze(1)
    is_again = first != torch.arange(len(texts), device=labels.device)
    draws = draws.masked_fill(is_own | is_again, 2.0)
    return draws.argsort(dim=1, stable=True)[:, : min(count, len(places) - 1)]


def _masks(
    texts: Sequence[str],
    images: torch.Tensor,
    seeds: torch.Tensor,
    band: int,
    draws: tuple[int, int],
    letters: str,
    font: str | None,
) -> torch.Tensor:
    """How much of each pixel letters cover, and letters with their outline: `[B,2,1,H,W]` in [0,1].

    Args:
        draws (`tuple[int]`): Numbers of the word, whose random letters are the same at each place, and of the place.
    """
    size = images.shape[-2:]
    word, place = draws
    corners = uniform_noise(seeds, (2,), _PLACES + place).tolist()
    masks = np.zeros((len(texts), 2, 1, *size), dtype=np.uint8)
    for i, (text, corner, seed) in enumerate(zip(texts, corners, seeds.tolist(), strict=True)):
        others = None if letters == "word" else tuple(random_letters(text, seed, _RANDOM + word))
        pixels = _drawn(text, size[1], band, font, others)
        height, width = pixels.shape[1:]
        top, left = int(corner[0] * (size[0] - height + 1)), int(corner[1] * (size[1] - width + 1))
        masks[i, :, 0, top : top + height, left : left + width] = pixels
    return torch.from_numpy(masks).to(images.device).to(at_least_float32(images).dtype) / 255


@lru_cache(maxsize=4096)
def _drawn(text: str, width: int, band: int, font: str | None, letters: tuple[str, ...] | None) -> np.ndarray:
    return draw(lay_out(text, width, band, font), font, letters)


def _paint(images: torch.Tensor, masks: torch.Tensor, colour: str) -> torch.Tensor:
    """The images with letters and their outline in front; where there are none, they stay as they are to the bit."""
    painted = at_least_float32(images)
    fill, outline = (painted.new_tensor(rgb).view(1, 3, 1, 1) for rgb in colours(colour))
    for mask, paint in ((masks[:, 1], outline), (masks[:, 0], fill)):
        painted = painted * (1 - mask) + paint * mask
    return painted.clamp(0, 1).to(images.dtype)
