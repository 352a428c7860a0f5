"""`Progress`: how far an attack on a set is, and how much can still be right."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from .. import progress as bars
from ..attacks.usage import Usage

PASSES_INTERVAL = 2.0  # seconds after which a long attack shows that it is at work

Classifier = Callable[[torch.Tensor], torch.Tensor]


class Progress:
    """A bar over the images of one attack on one set, and how much of all images can still be right.

    Args:
        title (`str`): Set and attack.
        total (`int`), done (`int`): Images that the attack is on, and those of them that have their verdict.
        right (`float`): Images that are right, or have no verdict yet; of segmentation the shares that are right.
        images (`int`): All images of the set that are evaluated.
        shown (`bool`): Whether there is a bar at all.
    """

    def __init__(self, title: str, total: int, done: int, right: float, images: int, shown: bool):
        self.bar = bars.progress_bar(title, total, done, shown=shown)
        self.right = right
        self.images = images
        self.drawn = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.close()

    @property
    def text(self) -> str:
        """The share of images that can still be right, in words."""
        return f"at most {self.right / self.images:.1%} right"

    def add(self, count: int, wrong: float) -> None:
        """Counts images that were judged, here or elsewhere; how many of those elsewhere were wrong is not known."""
        self.right -= wrong
        self.bar.update(count)
        self._show(self.text)

    def watched(self, classifier: Classifier, usage: Usage | None = None) -> Classifier:
        """The classifier, showing now and then that a long attack is at work on the batch.

        Args:
            usage (`Usage`, *optional*): Where its passes are counted.
        """
        return _Watched(classifier, self, usage)

    def show_pass(self, passes: int, images: int) -> None:
        """Shows how many passes there were, and how many images the last one had."""
        self._show(f"{self.text}, pass {passes} with {images} images")

    def _show(self, text: str) -> None:
        """Draws the bar with a text at once, but in a log file not before its time."""
        now = time.monotonic()
        is_due = bars.is_drawn_over() or now - self.drawn >= bars.LOG_INTERVAL
        self.bar.set_postfix_str(text, refresh=is_due)
        if is_due:
            self.drawn = now


class _Watched:
    """A classifier that counts its passes and shows them."""

    def __init__(self, classifier: Classifier, progress: Progress, usage: Usage | None):
        self.classifier = classifier
        self.progress = progress
        self.usage = usage
        self.passes = 0
        self.shown = time.monotonic()

    def __call__(self, images: torch.Tensor, *seeds: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.usage is not None:
            self.usage.count(len(images), waiting=False)
        if time.monotonic() - self.shown > PASSES_INTERVAL:
            self.shown = time.monotonic()
            self.progress.show_pass(self.passes, len(images))
        return self.classifier(images, *seeds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.classifier, name)  # what else it can do
