"""`Reader`: reads the images of a set ahead of the device, by worker processes if wanted, and keeps them in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import torch

from ..registry import check_count
from .loaded import Example, Labelled, Loaded
from .lots import split
from .workers import LOTS_AHEAD, Request, Workers

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
        self._workers = Workers(data, num_workers) if num_workers else None
        self._is_streaming = False
        self._kept: dict[int, Example] = {}
        self._bytes = 0

    @property
    def name(self) -> str:
        """The name of the set."""
        return self.data.name

    @property
    def size_of(self) -> Callable[[int], Hashable] | None:
        """The size of a row's image, of a set whose images differ in it."""
        return getattr(self.data, "size_of", None)

    @property
    def lots_ahead(self) -> int:
        """How many lots [`Reader.stream`] takes ahead of the one that it gives."""
        return self.num_workers * LOTS_AHEAD

    def stack(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images in [0,1] `[B,3,H,W]` and labels `[B,...]`, read in this process."""
        images, labels = zip(*(self.read(row) for row in rows), strict=True)
        return torch.stack(images), torch.stack(labels)

    def read(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One image in [0,1] `[3,H,W]` and its label, or labels, read in this process."""
        example = self._example(row)
        return example.floats(), example.labels

    def stream(self, lots: Iterable[Sequence[int]], with_digests: bool = False) -> Iterator[Loaded]:
        """Reads lots of rows one after the other, those that come next ahead if there are workers.

        What is kept comes from memory. An image that cannot be read is an error at the lot that holds it.

        Args:
            lots (iterable of `list[int]`): Rows by batch. The next one is taken when there is room for it, so that
                several processes may take from one queue.
            with_digests (`bool`): Whether to compute digests of the images.

        Raises:
            RuntimeError: if a worker is gone, or another stream of this reader has not ended.
            ValueError: for an image that cannot be read, or a set that cannot be handed to a worker.
        """
        if self._is_streaming:
            raise RuntimeError(
                f"A stream of {self.name!r} began before the last one had ended. Read that to its end, or close it."
            )
        self._is_streaming = True
        try:
            yield from self._stream(iter(lots), with_digests)
        finally:
            self._is_streaming = False

    def stream_without_haste(self, lots: Iterable[Sequence[int]]) -> Iterator[Loaded]:
        """As [`Reader.stream`], but takes a lot only when it is asked for one, whose images workers read side by side.

        So no process sits on lots that another one has time for.
        """
        for rows in lots:
            parts = split(rows, math.ceil(len(rows) / max(1, self.num_workers)), holders=1)
            loaded = [part.example(place) for part in self.stream(parts) for place in range(len(part.rows))]
            yield Loaded.of(rows, loaded)

    def close(self) -> None:
        """Ends the worker processes. What is kept stays, and they start again when they are needed."""
        if self._workers is not None:
            self._workers.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.close()
        if self._workers is not None:
            self._workers.raise_if_lost(error)

    def _stream(self, lots: Iterator[Sequence[int]], with_digests: bool) -> Iterator[Loaded]:
        for rows in lots:
            if self._workers is None or all(row in self._kept for row in rows):
                yield Loaded.of(rows, [self._example(row) for row in rows], with_digests)
            else:
                # From here on they read ahead, also beyond lots that are in memory.
                yield from self._stream_by(self._workers, itertools.chain([rows], lots), with_digests)

    def _stream_by(self, workers: Workers, lots: Iterator[Sequence[int]], with_digests: bool) -> Iterator[Loaded]:
        requests = (self._request(rows, with_digests) for rows in lots)
        for request, loaded in workers.stream(requests):
            yield self._joined(request, loaded)

    def _request(self, rows: Sequence[int], with_digests: bool) -> Request:
        return Request(list(rows), [row for row in rows if row not in self._kept], with_digests)

    def _joined(self, request: Request, loaded: Loaded | None) -> Loaded:
        """A whole lot: what a worker has read, which is kept while there is room, and what was kept before."""
        examples = {row: self._kept[row] for row in request.rows if row in self._kept}
        if loaded is not None:
            for place, row in enumerate(loaded.rows):
                examples[row] = loaded.example(place)
                self._keep(row, examples[row])
            if loaded.rows == request.rows:
                return loaded
        return Loaded.of(request.rows, [examples[row] for row in request.rows], request.with_digests)

    def _example(self, row: int) -> Example:
        """A row that is kept, or else is read and kept while there is room."""
        if row in self._kept:
            return self._kept[row]
        example = Example.read(self.data, row)
        self._keep(row, example)
        return example

    def _keep(self, row: int, example: Example) -> None:
        """Keeps a row if there is room, in memory of its own, so that no batch stays for one of its images."""
        if row not in self._kept and self._bytes + example.nbytes <= KEPT_BYTES:
            self._kept[row] = example.copy()
            self._bytes += example.nbytes
