"""How full the batches of an attack were."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Usage:
    """How full batches were.

    Args:
        size (`int`): Images that a batch holds.
        passes (`int`), images (`int`): Passes through the classifier, and all images in them.
        waiting_passes (`int`), waiting_images (`int`): Of them, those while something waited for a place.

    Example:
        >>> usage = Usage(size=4)
        >>> usage.count(4, waiting=True)
        >>> usage.count(2, waiting=False)
        >>> usage.fill, usage.waiting_fill
        (0.75, 1.0)
    """

    size: int
    passes: int = 0
    images: int = 0
    waiting_passes: int = 0
    waiting_images: int = 0

    def count(self, images: int, waiting: bool) -> None:
        """Counts a pass."""
        self.passes += 1
        self.images += images
        if waiting:
            self.waiting_passes += 1
            self.waiting_images += images

    @property
    def fill(self) -> float:
        """The share of places that were taken, the draining end included; 1 if there was no pass."""
        return self.images / (self.passes * self.size) if self.passes else 1.0

    @property
    def waiting_fill(self) -> float:
        """The share of places that were taken while something waited for one."""
        return self.waiting_images / (self.waiting_passes * self.size) if self.waiting_passes else 1.0
