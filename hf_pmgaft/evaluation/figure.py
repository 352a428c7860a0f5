"""`Figure`: the kind of number that a report holds, such as accuracy, a recall at k, or a mean IoU."""

from __future__ import annotations

import re
from dataclasses import dataclass

ACCURACY = "accuracy"
RECALL = "recall"
TARGET_KEPT_OUT = "target kept out"
MEAN_IOU = "mIoU"
PIXEL_ACCURACY = "pixel accuracy"
DIRECTIONS = ("I2T", "T2I")  # image to text, text to image


@dataclass(frozen=True)
class Figure:
    """The kind of number that a row of a report holds: accuracy, a recall at k, targets kept out of the first k, or of
    segmentation the mean IoU and the accuracy of pixels.

    Args:
        kind (`str`): `"accuracy"`, `"recall"`, `"target kept out"`, `"mIoU"` or `"pixel accuracy"`; only figures of
            one kind have a mean.
        direction (`str`, *optional*): Of a recall: `"I2T"`, texts found by an image, or `"T2I"`, images by a text.
        k (`int`, *optional*): How many of the first candidates count, but for accuracies.

    Example:
        >>> figure = Figure.parse("I2T R@5")
        >>> figure.kind, figure.direction, figure.k, figure.key
        ('recall', 'I2T', 5, 'I2T_R5')
        >>> Figure.recall("T2I", 10).title
        'T2I R@10'
    """

    kind: str = ACCURACY
    direction: str | None = None
    k: int | None = None

    @classmethod
    def recall(cls, direction: str, k: int) -> Figure:
        """The share of queries that find one of their own among the first k."""
        return cls(RECALL, direction, k)

    @classmethod
    def target_kept_out(cls, k: int) -> Figure:
        """The share of images that keep a target, which is not their own, out of the first k."""
        return cls(TARGET_KEPT_OUT, None, k)

    @classmethod
    def parse(cls, title: str) -> Figure:
        """The figure of a title, as reports store it.

        Raises:
            ValueError: for a text that is no title.
        """
        if title in (ACCURACY, MEAN_IOU, PIXEL_ACCURACY):
            return cls(title)

        recall = re.fullmatch(rf"({'|'.join(DIRECTIONS)}) R@(\d+)", title)
        if recall:
            return cls.recall(recall[1], int(recall[2]))

        target = re.fullmatch(r"target@(\d+)", title)
        if target:
            return cls.target_kept_out(int(target[1]))

        raise ValueError(
            f"You passed the figure {title!r}, which no report has. Pass 'accuracy', a recall such as 'I2T R@5', "
            "'target@5', 'mIoU' or 'pixel accuracy'."
        )

    @classmethod
    def of(cls, value: Figure | str) -> Figure:
        """The figure itself, or that of a title."""
        return value if isinstance(value, Figure) else cls.parse(value)

    @property
    def is_accuracy(self) -> bool:
        """Whether images are classified, and nothing is ranked."""
        return self.kind == ACCURACY

    @property
    def is_of_pixels(self) -> bool:
        """Whether it is pooled over the pixels of all images, rather than a share of images or queries."""
        return self.kind in (MEAN_IOU, PIXEL_ACCURACY)

    @property
    def counts_images(self) -> bool:
        """Whether it is over images among classes, rather than over queries among candidates."""
        return self.is_accuracy or self.is_of_pixels

    @property
    def title(self) -> str:
        """The figure in words, as tables and stored reports have it: `accuracy`, `I2T R@5`, `target@5`, `mIoU`."""
        if self.counts_images:
            return self.kind
        return f"{self.direction} R@{self.k}" if self.kind == RECALL else f"target@{self.k}"

    @property
    def key(self) -> str:
        """The title without what trackers and file names refuse: `accuracy`, `I2T_R5`, `target5`."""
        return plain_key(self.title)

    @property
    def kind_key(self) -> str:
        """The kind in the same way: `accuracy`, `recall`, `target_kept_out`."""
        return plain_key(self.kind)

    def __str__(self) -> str:
        return self.title


def plain_key(text: str) -> str:
    """A text without the spaces and signs that trackers and file names refuse.

    Example:
        >>> plain_key("I2T R@5")
        'I2T_R5'
    """
    return text.replace(" ", "_").replace("@", "")
