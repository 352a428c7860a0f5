"""`Reader`: reads the images of a set ahead of the device, by worker processes if wanted, and keeps them in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from ..registry import check_count
from .loaded import Example, Labelled, Loaded

KEPT_BYTES = 2**30  # of a set's images, so that not every attack decodes them anew


class Reader:
    """Reads the images of a set, and keeps those that were read while they take no more than `KEPT_BYTES`.

    Args:
        data (`Labelled`): The set.
        num_workers (`int`): Processes that read ahead of [`Reader.stream`]; 0 reads in this one, when it is asked.

    Raises:
        ValueError: for a number of workers that is none.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset
        >>> with Reader(ZeroShotDataset(dataset, processor, name="food")) as reader:
        ...     for loaded in reader.stream([[0, 2], [3]]):
        ...         print(loaded.rows, loaded.to("cpu").images.shape)
        [0, 2] torch.Size([2, 3, 16, 16])
        [3] torch.Size([1, 3, 16, 16])
    """

    def __init__(self, data: Labelled, num_workers: int = 0):
        self.data = data
        self.num_workers = check_count("num_workers", num_workers, least=0)
        self._kept: dict[int, Example] = {}
        self._bytes = 0

    @property
    def name(self) -> str:
        """The name of the set."""
        return self.data.name

    def stack(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images in [0,1] `[B,3,H,W]` and labels `[B,...]`, read in this process."""
        images, labels = zip(*(self.read(row) for row in rows), strict=True)
        return torch.stack(images), torch.stack(labels)

    def read(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One image in [0,1] `[3,H,W]` and its label, or labels, read in this process."""
        example = self._example(row)
        return example.floats(), example.labels

    def stream(self, lots: Iterable[Sequence[int]], with_digests: bool = False) -> Iterator[Loaded]:
        """Reads lots of rows one after the other, as they are asked for.

        Args:
            lots (iterable of `list[int]`): Rows by batch. It is asked for the next one when there is room for it, so
                that several processes may take from one queue.
            with_digests (`bool`): Whether to compute digests of the images.
        """
        for rows in lots:
            yield Loaded.of(rows, [self._example(row) for row in rows], with_digests)

    def close(self) -> None:
        """Ends the worker processes. What is kept stays, and they start again when they are needed."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _example(self, row: int) -> Example:
        """A row that is kept, or else is read and kept while there is room."""
        if row not in self._kept:
            example = Example.read(self.data, row)
            self._keep(row, example)
            return example
        return self._kept[row]

    def _keep(self, row: int, example: Example) -> None:
        if self._bytes + example.nbytes <= KEPT_BYTES:
            self._kept[row] = example
            self._bytes += example.nbytes
