"""What an attack is called with: images in [0,1], one label per image or several, and a seed per image.

Each attack looks once per call, which waits for the device once; no step of a walk does. A step of training has made
its images itself and its labels were looked at on the host, so that it does without (`known_values`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

import torch

from ..modes import frozen

# What images may miss [0,1] by through round-off, as a share of 1; half precision has a coarser one of its own.
ROUND_OFF = 1e-6
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)

_values_are_known: ContextVar[bool] = ContextVar("values_are_known", default=False)


@contextlib.contextmanager
def known_values() -> Iterator[None]:
    """Lets attacks look at shapes and types alone, where values are right by how they were made.

    Example:
        >>> with known_values():
        ...     images = check_images(torch.rand(1, 3, 8, 8))  # does not wait for the device
    """
    token = _values_are_known.set(True)
    try:
        yield
    finally:
        _values_are_known.reset(token)


def check_inputs(
    images: torch.Tensor, labels: torch.Tensor, seeds: torch.Tensor | None, several_labels: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns what an attack can work with, or raises `ValueError` and says what is wrong with it.

    Args:
        images (`torch.Tensor`): See [`check_images`].
        labels (`torch.Tensor`): See [`check_labels`].
        seeds (`torch.Tensor`, *optional*): See [`check_seeds`].
        several_labels (`bool`): Whether an image may have more than one right label.

    Example:
        >>> images, labels, seeds = check_inputs(torch.rand(2, 3, 8, 8), torch.tensor([[0], [1]]), None)
        >>> labels.tolist(), seeds.tolist()
        ([0, 1], [0, 1])
    """
    images = check_images(images)
    return images, check_labels(labels, images, several_labels), check_seeds(seeds, images)


def check_images(images: torch.Tensor) -> torch.Tensor:
    """Returns images `[B,C,H,W]` of floating point numbers in [0,1]; what round-off took out of that comes back.

    Raises:
        ValueError: for no tensor, another shape or type, no images, NaN, and values outside [0,1].

    Example:
        >>> check_images(torch.full((1, 1, 1, 1), 1.0 + 5e-7)).item()
        1.0
        >>> check_images(torch.full((1, 3, 8, 8), 255.0))
        Traceback (most recent call last):
        ValueError: You passed images with values from 255 to 255, ... Divide them by 255.
    """
    if not isinstance(images, torch.Tensor):
        raise ValueError(
            f"You passed images as {type(images).__name__}; an attack needs a torch.Tensor [B,C,H,W] of floating "
            "point numbers in [0,1]. Convert them."
        )
    if images.ndim != 4 or images.dtype not in FLOATS:
        raise ValueError(
            f"You passed images of shape {tuple(images.shape)} and type {images.dtype}; an attack walks through "
            "[B,C,H,W] of floating point numbers in [0,1]. Convert them."
        )
    if not images.numel():
        raise ValueError(
            f"You passed images of shape {tuple(images.shape)}, among which there is nothing to attack. Pass at least "
            "one."
        )

    if _values_are_known.get():
        return images
    with torch.no_grad():
        low, high = torch.stack(images.aminmax()).tolist()
    if not low <= high:
        raise ValueError("You passed images that hold NaN, from which no attack comes back. Correct or remove them.")
    if low >= 0 and high <= 1:
        return images

    tolerance = max(ROUND_OFF, torch.finfo(images.dtype).eps)
    if low < -tolerance or high > 1 + tolerance:
        advice = "If they are normalised, pass images * std + mean, and a classifier that normalises."
        if low >= 0 and 2 < high <= 255:
            advice = "Divide them by 255."
        raise ValueError(
            f"You passed images with values from {low:.4g} to {high:.4g}, but pixels go from 0 to 1, and radii "
            f"are in that scale. {advice}"
        )
    return images.clamp(0, 1)


def check_labels(labels: torch.Tensor, images: torch.Tensor, several: bool = False) -> torch.Tensor:
    """Returns one label per image as `[B]`, int64; where there may be `several`, `[B,P]` stay as they are.

    Whether they are below the number of classes is for [`check_classes`], which needs the logits.

    Raises:
        ValueError: for no tensor, another shape, no whole numbers, another device than the images', and negative ones.

    Example:
        >>> check_labels(torch.tensor([[2]], dtype=torch.uint8), torch.rand(1, 3, 8, 8))
        tensor([2])
    """
    if not isinstance(labels, torch.Tensor):
        given = "no labels" if labels is None else f"labels as {type(labels).__name__}"
        raise ValueError(
            f"You passed {given}; an attack needs the class of each image. Pass a torch.Tensor of whole numbers, such "
            "as torch.as_tensor(labels)."
        )
    if labels.dtype not in INTEGERS:
        raise ValueError(
            f"You passed labels of type {labels.dtype}, which are no numbers of classes. Pass whole numbers, such as "
            "labels.long(), or of probabilities labels.argmax(dim=1)."
        )
    if labels.device != images.device:
        raise ValueError(
            f"You passed labels on {labels.device}, but the images are on {images.device}. Pass "
            "labels.to(images.device)."
        )

    if not several and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    shapes = "[B], or [B,P] for several right ones" if several else "[B]"
    if labels.ndim not in ((1, 2) if several else (1,)) or len(labels) != len(images) or not labels.numel():
        raise ValueError(
            f"You passed labels of shape {tuple(labels.shape)} for {len(images)} images. Pass {shapes}: numbers of "
            "classes, not one-hot rows (labels.argmax(dim=1) of such)."
        )
    labels = labels.long()
    if _values_are_known.get():
        return labels
    smallest = int(labels.amin())
    if smallest < 0:
        raise ValueError(
            f"You passed labels as low as {smallest}, but classes count from 0, and no label is ignored. Leave out "
            "images without a class."
        )
    return labels


def check_seeds(seeds: torch.Tensor | None, images: torch.Tensor) -> torch.Tensor:
    """Returns a seed for each image, `[B]`: 0, 1, 2, ... if none are given.

    Raises:
        ValueError: for another shape or type, or another device than the images'.

    Example:
        >>> check_seeds(None, torch.rand(3, 1, 2, 2))
        tensor([0, 1, 2])
    """
    if seeds is None:
        return torch.arange(len(images), device=images.device)
    if not isinstance(seeds, torch.Tensor) or seeds.shape != images.shape[:1] or seeds.dtype not in INTEGERS:
        given = f"{seeds.dtype} of shape {tuple(seeds.shape)}" if isinstance(seeds, torch.Tensor) else repr(seeds)
        raise ValueError(f"You passed seeds of {given} for {len(images)} images. Pass whole numbers, one per image.")
    if seeds.device != images.device:
        raise ValueError(
            f"You passed seeds on {seeds.device}, but the images are on {images.device}. Pass seeds.to(images.device)."
        )
    return seeds


def check_logits(logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Returns what a classifier made of points `[B,C,H,W]`: logits `[B,K]`, of at least two classes.

    It looks at shapes and types alone, and does not wait for the device.

    Raises:
        ValueError: for anything else, such as a tuple or a dict that holds them, one logit per image, and logits
            without the gradient that an attack goes by.

    Example:
        >>> check_logits(torch.zeros(2, 10), torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 10])
        >>> check_logits((torch.zeros(2, 10),), torch.rand(2, 3, 8, 8))
        Traceback (most recent call last):
        ValueError: The classifier returned tuple in place of logits [B,K]. Pass a function that returns ...
    """
    if not isinstance(logits, torch.Tensor):
        hint = ", such as model(images).logits" if hasattr(logits, "logits") or isinstance(logits, Mapping) else ""
        raise ValueError(
            f"The classifier returned {type(logits).__name__} in place of logits [B,K]. Pass a function that returns "
            f"the tensor alone{hint}."
        )
    if logits.ndim != 2 or len(logits) != len(points) or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ValueError(
            f"The classifier returned {logits.dtype} of shape {tuple(logits.shape)} for {len(points)} images, where "
            "an attack needs logits [B,K]: a floating point number for each image and each of two classes or more. "
            "Of one logit x per image, return torch.stack([-x, x], dim=1)."
        )
    if logits.device != points.device:
        raise ValueError(
            f"The classifier returned logits on {logits.device}, but the images are on {points.device}. Put both on "
            "one device."
        )
    if torch.is_grad_enabled() and points.requires_grad and not logits.requires_grad:
        raise ValueError(
            "The classifier returned logits without a gradient, by which an attack finds its way. Leave out "
            "detach(), no_grad() and NumPy, or take an attack that needs none, such as square."
        )
    return logits


@torch.no_grad()
def count_classes(classifier: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> int:
    """Asks a classifier how many classes it has, by the first of some images.

    Example:
        >>> count_classes(lambda images: images.flatten(1)[:, :7], torch.rand(4, 3, 8, 8))
        7
    """
    image = images[:1].contiguous()
    with frozen(classifier):
        return check_logits(classifier(image), image).shape[1]


def check_not_nan(logits: torch.Tensor) -> None:
    """Raises `FloatingPointError` for logits among which there is NaN or infinity; it waits for the device.

    A class may be ruled out by a logit of minus infinity.

    Example:
        >>> check_not_nan(torch.tensor([[0.0, -torch.inf]]))
        >>> check_not_nan(torch.tensor([[0.0, torch.nan]]))
        Traceback (most recent call last):
        FloatingPointError: The logits are NaN or infinite, so that no verdict can be given.
    """
    if not _values_are_known.get() and not (logits < torch.inf).all():
        raise FloatingPointError("The logits are NaN or infinite, so that no verdict can be given.")


def check_classes(labels: torch.Tensor, num_classes: int) -> None:
    """Raises `ValueError` for labels, `[B]` or `[B,P]`, that are outside the classes, or one-hot rows.

    It waits for the device, so that a walk asks once.

    Example:
        >>> check_classes(torch.tensor([0, 7]), num_classes=5)
        Traceback (most recent call last):
        ValueError: You passed labels up to 7, but the classifier has 5 classes (0 to 4). Correct them.
    """
    if _values_are_known.get():
        return
    largest = int(labels.amax())
    if largest >= num_classes:
        raise ValueError(
            f"You passed labels up to {largest}, but the classifier has {num_classes} classes (0 to "
            f"{num_classes - 1}). Correct them."
        )
    if labels.ndim == 2 and labels.shape[1] == num_classes > 1 and largest == 1 and (labels.sum(1) == 1).all():
        raise ValueError(
            f"You passed labels of shape {tuple(labels.shape)} that are one-hot, which would be read as the classes 0 "
            "and 1 of every image. Pass labels.argmax(dim=1)."
        )
