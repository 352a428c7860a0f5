"""`Progress`: how far an attack on a set is, and how much can still be right; `WholeProgress`: all attacks at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .. import progress as bars
from ..attacks.usage import Usage
from .verdicts import CLEAN

PASSES_INTERVAL = 2.0  # seconds after which a long attack shows that it is at work

Classifier = Callable[[torch.Tensor], torch.Tensor]


class WholeProgress:
    """One bar over all images and attacks of an evaluation, with clean and robust accuracy so far.

    Where bars cannot be left one below the other, in a notebook or a log file, it stands for those of the attacks.

    Args:
        images (`dict[str, int]`): By set how many images it has.
        total (`int`): Images of all sets together, each as often as it is judged: clean, and under each attack.
        leading (`dict[str, list[str]]`): By set the attacks that lead to the headline.

    Example:
        >>> whole = WholeProgress({"food": 4}, total=8, leading={"food": ["pgd"]}, shown=False)
        >>> with Progress("food", "clean", 4, 0, right=4, images=4, shown=False, whole=whole) as clean:
        ...     clean.add(4, wrong=1)
        >>> with Progress("food", "pgd", 3, 0, right=3, images=4, shown=False, whole=whole) as attack:
        ...     attack.add(1, wrong=1)
        >>> whole.text
        'clean 75.0%, robust at most 50.0%'
    """

    def __init__(
        self, images: Mapping[str, int], total: int, leading: Mapping[str, Sequence[str]], shown: bool = True
    ):
        self.bar = bars.progress_bar("evaluation", total, shown=shown)
        self.leading = leading
        self.images = images
        self._clean: dict[str, tuple[float, int]] = {}  # by set how much is right of how many that were judged
        self._robust: dict[str, float] = {}  # by set how much can still be right

    @property
    def text(self) -> str:
        """The accuracies so far, in words: of the images that were judged, and of the sets that are attacked."""
        parts = []
        if judged := sum(count for _, count in self._clean.values()):
            parts.append(f"clean {sum(right for right, _ in self._clean.values()) / judged:.1%}")
        if attacked := sum(self.images[name] for name in self._robust):
            parts.append(f"robust at most {sum(self._robust.values()) / attacked:.1%}")
        return ", ".join(parts)

    def begin(self, name: str, key: str, skipped: int) -> None:
        """Goes on with another attack, which leaves some images of the set out, or has them on file."""
        self.bar.set_description(f"{name}: {key}", refresh=False)
        self.bar.update(skipped)

    def note(self, name: str, key: str, right: float, open_images: int) -> None:
        """Notes how much of a set can still be right under an attack, of which some images are not judged yet."""
        if key == CLEAN:
            self._clean[name] = (right - open_images, self.images[name] - open_images)
        elif key in self.leading[name]:
            self._robust[name] = min(right, self._robust.get(name, right))

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()


class Progress:
    """A bar over the images of one attack on one set, and how much of all images can still be right.

    Args:
        name (`str`), key (`str`): Set and attack.
        total (`int`), done (`int`): Images that the attack is on, and those of them that have their verdict.
        right (`float`): Images that are right, or have no verdict yet; of segmentation the shares that are right.
        images (`int`): All images of the set that are evaluated.
        shown (`bool`): Whether there is a bar at all.
        whole (`WholeProgress`, *optional*): Whose bar it is a part of, in place of one of its own.
    """

    def __init__(
        self,
        name: str,
        key: str,
        total: int,
        done: int,
        right: float,
        images: int,
        shown: bool,
        whole: WholeProgress | None = None,
    ):
        self.name = name
        self.key = key
        self.right = right
        self.images = images
        self.whole = whole
        self.drawn = time.monotonic()
        self.open_images = total - done
        if whole is None:
            self.bar = bars.progress_bar(f"{name}: {key}", total, done, shown=shown)
        else:
            self.bar = whole.bar
            whole.begin(name, key, skipped=images - self.open_images)
            whole.note(name, key, right, self.open_images)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        if self.whole is None:
            self.bar.close()

    @property
    def text(self) -> str:
        """The share of images that can still be right, in words; of a whole evaluation its accuracies."""
        if self.whole is not None:
            return self.whole.text
        return f"at most {self.right / self.images:.1%} right"

    def add(self, count: int, wrong: float) -> None:
        """Counts images that were judged, here or elsewhere; how many of those elsewhere were wrong is not known."""
        self.right -= wrong
        self.open_images -= count
        if self.whole is not None:
            self.whole.note(self.name, self.key, self.right, self.open_images)
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
