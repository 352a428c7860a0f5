"""`Judge`: reads a set, batch by batch, attacks it and shows how it fares. It knows no task.

Each task asks it for batches of images that have no verdict yet, attacks them through it, and notes its own verdicts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import progress as bars
from ..attacks.spec import AttackSpec
from ..distributed import process_share
from ..fingerprints import digest_of_image
from ..noise import sample_seeds
from .reader import Reader
from .verdicts import PIXELS, Verdicts

PASSES_INTERVAL = 2.0  # seconds after which a long attack shows that it is at work

Classifier = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """Some rows of a set: their images `[B,3,H,W]` in [0,1], their labels `[B,...]`, and the bar that shows them."""

    rows: list[int]
    images: torch.Tensor
    labels: torch.Tensor
    progress: Progress

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def digests(self) -> list[str]:
        """A digest of each image with its labels."""
        return [digest_of_image(image, labels) for image, labels in zip(self.images, self.labels, strict=True)]


# ---- Progress ----


class Progress:
    """A bar over the images of one attack on one set, and how many of this process's share can still be right.

    Args:
        title (`str`): Set and attack.
        total (`int`), done (`int`): Images that the attack is on, and those of them that have their verdict.
        right (`int`): Images that are right, or have no verdict yet.
        share (`int`): Images of this process.
        shown (`bool`): Whether there is a bar at all.
    """

    def __init__(self, title: str, total: int, done: int, right: int, share: int, shown: bool):
        self.bar = bars.progress_bar(title, total, done, shown=shown)
        self.right = right
        self.share = share
        self.drawn = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.close()

    @property
    def text(self) -> str:
        """The share of images that can still be right, in words."""
        return f"at most {self.right / self.share:.1%} right"

    def add(self, count: int, wrong: int) -> None:
        """Counts a batch that was judged."""
        self.right -= wrong
        self.bar.update(count)
        self._show(self.text)

    def watched(self, classifier: Classifier) -> Classifier:
        """The classifier, showing now and then that a long attack is at work on the batch."""
        return _Watched(classifier, self)

    def show_pass(self, passes: int, images: int) -> None:
        """Shows how many passes over a batch there were, and how many images the last one had."""
        self._show(f"{self.text}, pass {passes} over a batch, {images} images in it")

    def _show(self, text: str) -> None:
        """Draws the bar with a text at once, but in a log file not before its time."""
        now = time.monotonic()
        is_due = bars.is_drawn_over() or now - self.drawn >= bars.LOG_INTERVAL
        self.bar.set_postfix_str(text, refresh=is_due)
        if is_due:
            self.drawn = now


class _Watched:
    """A classifier that counts its passes and shows them."""

    def __init__(self, classifier: Classifier, progress: Progress):
        self.classifier = classifier
        self.progress = progress
        self.passes = 0
        self.shown = time.monotonic()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if time.monotonic() - self.shown > PASSES_INTERVAL:
            self.shown = time.monotonic()
            self.progress.show_pass(self.passes, len(images))
        return self.classifier(images)


# ---- Judging ----


@dataclass
class Judge:
    """Gives batches to judge on this process's share of the images, and attacks them.

    Verdicts that are already in the file are not computed again.

    Args:
        verdicts (`Verdicts`): Where they are noted.
        any_iterate (`bool`): Whether an image is fooled by any point that an attack visits.
        eight_bit (`bool`): Whether adversarial images are also judged after rounding them to 8 bits.
        batch_size (`int`): Images at once.
        seed (`int`): Of the attacks' noise.
        progress (`bool`): Whether bars are shown.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> reader = Reader(ZeroShotDataset(dataset, processor, name="food"))
        >>> verdicts = Verdicts(None, {})
        >>> judge = Judge(verdicts, any_iterate=True, eight_bit=False, batch_size=8, seed=0, progress=False)
        >>> for batch in judge.batches(reader, "bright", range(16), range(16), is_right=bool):
        ...     judge.note(reader, "bright", batch, (batch.images.mean((1, 2, 3)) > 0.5).tolist())
        >>> sum(verdicts.of("food", "bright").values())
        16
    """

    verdicts: Verdicts
    any_iterate: bool
    eight_bit: bool
    batch_size: int
    seed: int
    progress: bool

    def share(self, rows: Sequence[int]) -> list[int]:
        """The rows that this process judges."""
        rank, count = process_share()
        return list(rows[rank::count])

    def check_images(self, reader: Reader, rows: Sequence[int]) -> None:
        """Raises `ValueError` if verdicts on file are of other images than the set's."""
        digests = self.verdicts.of(reader.name, PIXELS)
        on_file = [row for row in rows if row in digests]
        shown = self.progress and bool(on_file)
        with bars.progress_bar(f"{reader.name}: images on file", len(on_file), shown=shown) as bar:
            for row in on_file:
                if digest_of_image(*reader.read(row)) != digests[row]:
                    raise ValueError(
                        f"The verdict file holds verdicts on other images or labels of {reader.name!r}: row {row} "
                        "differs. Pass another file, or remove it."
                    )
                bar.update()

    def batches(
        self,
        reader: Reader,
        key: str,
        candidates: Sequence[int],
        share: Sequence[int],
        is_right: Callable[[Any], bool],
    ) -> Iterator[Batch]:
        """Batches of the candidates that have no verdict under a key yet; shows how the whole share fares.

        Whoever takes a batch notes its verdicts before asking for the next one. `is_right` reads a verdict.
        """
        values = self.verdicts.of(reader.name, key)
        todo = [row for row in candidates if row not in values]
        done = len(candidates) - len(todo)
        right = len(todo) + sum(row in values and is_right(values[row]) for row in candidates)

        with Progress(f"{reader.name}: {key}", len(candidates), done, right, len(share), self.progress) as progress:
            for start in range(0, len(todo), self.batch_size):
                rows = todo[start : start + self.batch_size]
                yield Batch(rows, *reader.stack(rows), progress)
                progress.add(len(rows), wrong=sum(not is_right(values[row]) for row in rows))

    def note(self, reader: Reader, key: str, batch: Batch, values: Sequence[Any]) -> None:
        """Notes a value for each image of a batch."""
        self.verdicts.add(reader.name, key, batch.rows, values)

    def attack(
        self,
        spec: AttackSpec,
        classifier: Classifier,
        batch: Batch,
        *,
        any_iterate: bool = False,
        targeted: bool = False,
    ) -> torch.Tensor:
        """Adversarial images of a batch, `[B,3,H,W]`.

        Raises:
            RuntimeError: if the attack returns what its threat does not allow.
        """
        seeds = sample_seeds(self.seed, 0, torch.tensor(batch.rows, device=batch.images.device))
        watched = batch.progress.watched(classifier)
        adversarial = spec.run(watched, batch.images, batch.labels, seeds, any_iterate=any_iterate, targeted=targeted)

        outside = ~spec.allows(batch.images, adversarial)
        if outside.any():
            rows = [row for row, out in zip(batch.rows, outside.tolist(), strict=True) if out]
            raise RuntimeError(f"{spec.name} left its ball or [0,1] on the images of rows {rows}.")
        return adversarial


def check_finite(logits: torch.Tensor, name: str, rows: Sequence[int]) -> None:
    """Raises `ValueError` if some of the logits of these rows of a set are not finite."""
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"The model's logits are NaN or infinite on images among the rows {rows[0]} to {rows[-1]} of "
            f"{name!r}, so no verdict on them means anything. Check the weights of the checkpoint."
        )
