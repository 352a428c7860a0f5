"""What attacks on pixels can be: which of them there are, and the masks and logits that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .dense_losses import DENSE_LOSSES, OF_PIXELS
from .losses import LOSSES

if TYPE_CHECKING:
    from .spec import AttackSpec

# Attacks on segmentation. All but the last are attacks on images as a whole too.
DENSE = ("apgd", "fgsm", "pgd", "sea")

# ---- Attacks ----


def is_of_pixels(spec: AttackSpec) -> bool:
    """Tells whether an attack is one on pixels alone, and none on images as a whole.

    Example:
        >>> from hf_pmgaft import AttackSpec
        >>> [is_of_pixels(AttackSpec.parse(f"pgd,eps=4/255,loss={loss}")) for loss in ("ce", "masked_ce")]
        [False, True]
    """
    return spec.attack == "sea" or spec.options.get("loss") in OF_PIXELS


def check_dense(spec: AttackSpec) -> None:
    """Raises `ValueError` for what is no attack on the pixels of segmentation.

    Example:
        >>> from hf_pmgaft import AttackSpec
        >>> check_dense(AttackSpec.parse("sea,eps=4/255"))
        >>> check_dense(AttackSpec.parse("square,eps=4/255"))
        Traceback (most recent call last):
        ValueError: You passed Square linf 4/255, which is no attack on pixels of segmentation. Pass one of ...
    """
    if spec.attack not in DENSE:
        raise ValueError(
            f"You passed {spec.name}, which is no attack on pixels of segmentation. Pass one of {', '.join(DENSE)}."
        )
    if spec.options.get("tau") is not None:
        raise ValueError(
            f"You passed {spec.name}, which ends where an image is misclassified as a whole; pixels never are all at "
            "once. Leave tau out."
        )
    if spec.attack != "sea" and spec.options["loss"] not in DENSE_LOSSES:
        raise ValueError(
            f"You passed {spec.name}, whose loss is none of pixels. Pass the loss {', '.join(sorted(DENSE_LOSSES))}."
        )


def check_whole(spec: AttackSpec) -> None:
    """Raises `ValueError` for what is no attack on images that are classified as a whole, or retrieved.

    Example:
        >>> from hf_pmgaft import AttackSpec
        >>> check_whole(AttackSpec.parse("pgd,eps=4/255,loss=js"))
        Traceback (most recent call last):
        ValueError: You passed PGD-10 js linf 4/255, but js is a loss of pixels; images as a whole have none. Pass ...
    """
    if spec.attack == "sea":
        raise ValueError(
            f"You passed {spec.name}, but sea is an attack on the pixels of segmentation. Pass it with a set of "
            "images and masks; of images as a whole, 'autoattack' is the ensemble."
        )
    if is_of_pixels(spec):
        raise ValueError(
            f"You passed {spec.name}, but {spec.options['loss']} is a loss of pixels; images as a whole have none. "
            f"Pass one of {', '.join(sorted(LOSSES))}, or a set of images and masks."
        )


# ---- What they are called with ----


def check_masks(masks: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Returns masks as int64 `[B,H,W]`, or raises `ValueError` for what are no class indices of these images' pixels.

    Example:
        >>> check_masks(torch.zeros(1, 8, 8, dtype=torch.uint8), torch.rand(1, 3, 8, 8)).dtype
        torch.int64
    """
    is_mask = isinstance(masks, torch.Tensor) and not masks.is_floating_point() and masks.dtype != torch.bool
    if not is_mask or masks.shape != (len(images), *images.shape[-2:]):
        given = (
            f"{masks.dtype} of shape {tuple(masks.shape)}" if isinstance(masks, torch.Tensor) else type(masks).__name__
        )
        raise ValueError(
            f"You passed masks of {given} for images of shape {tuple(images.shape)}. Pass [B,H,W] of whole numbers: "
            "the class of each pixel, below 0 where it is ignored."
        )
    if masks.device != images.device:
        raise ValueError(
            f"You passed masks on {masks.device}, but the images are on {images.device}. Pass masks.to(images.device)."
        )
    return masks.long()


def check_mask_classes(masks: torch.Tensor, num_classes: int) -> None:
    """Raises `ValueError` for masks that hold indices outside the classes.

    Example:
        >>> check_mask_classes(torch.tensor([[[0, 255]]]), num_classes=21)
        Traceback (most recent call last):
        ValueError: You passed masks with values up to 255, but there are 21 classes (0 to 20). ...
    """
    largest = int(masks.amax())
    if largest >= num_classes:
        raise ValueError(
            f"You passed masks with values up to {largest}, but there are {num_classes} classes (0 to "
            f"{num_classes - 1}). Pass a value below 0, such as -1, where pixels are ignored."
        )


def check_dense_logits(logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Returns what a segmenter made of points `[B,C,H,W]`, or raises `ValueError` unless it is logits `[B,K,H,W]`.

    Example:
        >>> check_dense_logits(torch.zeros(2, 10, 8, 8), torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 10, 8, 8])
    """
    is_logits = isinstance(logits, torch.Tensor) and logits.is_floating_point() and logits.ndim == 4
    if not is_logits or logits.shape[1] < 2 or logits.shape != (len(points), logits.shape[1], *points.shape[-2:]):
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(
            f"The segmenter returned {given} for images of shape {tuple(points.shape)}, where an attack needs logits "
            "[B,K,H,W]: a floating point number for each pixel and each of two classes or more."
        )
    return logits
