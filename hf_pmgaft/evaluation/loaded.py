"""`Loaded`: some rows of a set as they were read, ready for a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch

from ..fingerprints import digest_of_image
from .levels import to_floats, to_levels


class Labelled(Protocol):
    """A set with a name that gives `{"images": [3,H,W] in [0,1], "labels": number, numbers or tensor}` by row."""

    name: str

    def __getitem__(self, row: int) -> dict[str, Any]: ...


class Example(NamedTuple):
    """One row: its image `[3,H,W]`, as 8-bit levels with the number of their table or as floats, and its labels.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> example = Example.read(ZeroShotDataset(dataset, processor, name="food"), row=2)
        >>> example.image.dtype, example.floats().dtype, example.labels
        (torch.uint8, torch.float32, tensor(2))
    """

    image: torch.Tensor
    table: int | None
    labels: torch.Tensor

    @classmethod
    def read(cls, data: Labelled, row: int) -> Example:
        """Reads a row of a set."""
        example = data[row]
        image = example["images"].float()
        labels = torch.as_tensor(example["labels"])
        levels = to_levels(image)
        if levels is None:
            return cls(image, None, labels)
        return cls(*levels, labels)

    @property
    def nbytes(self) -> int:
        """The room that the image takes."""
        return self.image.nbytes

    def floats(self) -> torch.Tensor:
        """The image in [0,1], `[3,H,W]`, as it was read, bit for bit."""
        return self.image if self.table is None else to_floats(self.image, torch.tensor(self.table))

    def digest(self) -> str:
        """A digest of the image and its labels."""
        return digest_of_image(self.floats(), self.labels)

    def copy(self) -> Example:
        """The same in memory of its own, rather than in that of its batch."""
        return self._replace(image=self.image.clone(), labels=self.labels.clone())


@dataclass(frozen=True)
class Loaded:
    """Some rows of a set as they were read.

    Args:
        rows (`list[int]`): Their numbers.
        images (`torch.Tensor`): `[B,3,H,W]`, as 8-bit levels if that is exact for all of them, else floats in [0,1].
        labels (`torch.Tensor`): `[B,...]`.
        digests (`list[str]`, *optional*): A digest of each image with its labels, if they were asked for.
        tables (`torch.Tensor`, *optional*): Which table leads back from 8 bits, `[B]`; `None` of floats.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> data = ZeroShotDataset(dataset, processor, name="food")
        >>> loaded = Loaded.read(data, rows=[0, 2])
        >>> loaded.images.dtype, loaded.to("cpu").images.dtype, loaded.labels.tolist()
        (torch.uint8, torch.float32, [0, 2])
        >>> torch.equal(loaded.to("cpu").images[1], data[2]["images"])
        True
    """

    rows: list[int]
    images: torch.Tensor
    labels: torch.Tensor
    digests: list[str] | None = None
    tables: torch.Tensor | None = None

    @classmethod
    def read(cls, data: Labelled, rows: Sequence[int], with_digests: bool = False) -> Loaded:
        """Reads rows of a set."""
        return cls.of(rows, [Example.read(data, row) for row in rows], with_digests)

    @classmethod
    def of(cls, rows: Sequence[int], examples: Sequence[Example], with_digests: bool = False) -> Loaded:
        """Rows that were read one by one."""
        labels = torch.stack([example.labels for example in examples])
        digests = [example.digest() for example in examples] if with_digests else None
        if any(example.table is None for example in examples):
            return cls(list(rows), torch.stack([example.floats() for example in examples]), labels, digests)

        images = torch.stack([example.image for example in examples])
        tables = torch.tensor([example.table for example in examples], dtype=torch.uint8)
        return cls(list(rows), images, labels, digests, tables)

    def example(self, place: int) -> Example:
        """The row in a place of the batch; it shares the batch's memory."""
        table = None if self.tables is None else int(self.tables[place])
        return Example(self.images[place], table, self.labels[place])

    def share_memory(self) -> None:
        """Moves all tensors to memory that another process can be handed.

        Raises:
            RuntimeError: if there is not enough of it.
        """
        for tensor in (self.images, self.labels, self.tables):
            if tensor is not None:
                tensor.share_memory_()

    def pin_memory(self) -> Loaded:
        """The same with images in memory that a GPU copies while others compute; `DataLoader` asks for it."""
        return replace(self, images=self.images.pin_memory())

    def to(self, device: torch.device | str) -> Loaded:
        """The same on a device with floats in [0,1], bit for bit the images of the set."""
        images = self.images.to(device, non_blocking=self.images.is_pinned())
        labels = self.labels.to(device)
        if self.tables is not None:
            images = to_floats(images, self.tables.to(device))
        return replace(self, images=images, labels=labels, tables=None)
