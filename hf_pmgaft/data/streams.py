"""Streams of images -> training examples, in an order that follows from seed and pass."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import datasets
from torch.utils.data import IterableDataset, get_worker_info

from .rows import ImageRows, content_id

# A stream of fewer files is shuffled by parts of them: `datasets` fills the buffer from ten at a time.
FEW_FILES = 10


class StreamingImages(ImageRows, IterableDataset):
    """Training examples of a streaming image set. The id of a row is a checksum of its pixels.

    It takes the arguments of [`ImageRows`], and gives rows as [`ImageClassificationDataset`] does.

    Example:
        >>> stream = StreamingImages(dataset.to_iterable_dataset(), processor)
        >>> next(iter(stream))["labels"]
        0
    """

    # How `shuffled` orders the rows, `None` as they come; the set before it, and the pass that runs.
    order: dict[str, int] | None = None
    unshuffled: Any = None
    epoch = 0
    # How training reads it, see `read_in_batches`.
    batch_size = 1
    drop_last = False
    resumed_epoch: int | None = None
    batches_done = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        stream = "the stream" if worker is None else f"worker {worker.id}'s part of the stream"
        done = range(0)
        if self.epoch == self.resumed_epoch:
            # Batches come from workers by turns, until one of them has no more: so many each has surely given.
            batches = self.batches_done // (1 if worker is None else worker.num_workers)
            done = range(self.batch_size, batches * self.batch_size)

        first = None
        rows = _of_whole_batches(self.dataset, self.batch_size) if self.drop_last else self.dataset
        for number, row in enumerate(rows):
            if number in done:
                yield dict(first)
                continue
            example = self.example(row, f"{number} of {stream}")
            example["sample_id"] = content_id(example["pixel_values"])
            first = first or dict(example)
            yield example

    def set_epoch(self, epoch: int) -> None:
        """Reshuffles the stream, if it shuffles at all."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def shuffled(self, seed: int, buffer_size: int = 1000) -> StreamingImages:
        """Gives the same rows in an order that follows from the seed and the pass.

        Files come in any order, ten at a time. Each row is drawn from a buffer, which holds images as files do. Of a
        set of few parquet files the row groups are shuffled in their place, where `datasets` can do that.

        Args:
            seed (`int`): Another one gives another order.
            buffer_size (`int`): Rows among which the next one is drawn, at least 1; each worker has such a buffer.

        Raises:
            ValueError: for an empty buffer, and a stream that is none of `datasets`.

        Example:
            >>> stream = StreamingImages(dataset.to_iterable_dataset(), processor).shuffled(seed=0, buffer_size=16)
            >>> [row["labels"] for row in stream] == [row["label"] for row in dataset]
            False
        """
        if buffer_size < 1:
            raise ValueError(
                f"You passed shuffle_buffer={buffer_size}, from which no row can be drawn. Pass such as 1000, or read "
                "the stream in order."
            )
        if not isinstance(self.dataset, datasets.IterableDataset):
            raise ValueError(
                f"You passed shuffle_buffer={buffer_size} with a {type(self.dataset).__name__}, which cannot be "
                "shuffled. Pass a stream of `datasets`, or 0 and shuffle it yourself by (seed, pass) in `set_epoch`."
            )
        rows = self.dataset
        if rows.num_shards < FEW_FILES and hasattr(rows, "reshard"):
            rows = rows.reshard()

        other = copy.copy(self)
        other.unshuffled = self.dataset
        other.dataset = rows.shuffle(seed=seed, buffer_size=buffer_size)
        other.order = {"seed": seed, "buffer_size": buffer_size}
        return other

    def in_order(self) -> Any:
        """The rows as they come, with images as files."""
        return self.dataset if self.unshuffled is None else self.unshuffled

    def read_in_batches(self, batch_size: int, drop_last: bool, epoch: int = 0, batches_done: int = 0) -> None:
        """Says how the stream is read in training, and how far it has been read.

        A pass that goes on is begun again, but the rows of batches that were trained on are not decoded. Copies of the
        first row hold their places, so that batches keep their numbers, and who reads the stream leaves out
        `batches_done` of them. The first batch is whole: a last one may be filled up from it.

        Args:
            batch_size (`int`): Images of a batch, of all processes.
            drop_last (`bool`): Whether each worker leaves out its last rows, which fill no batch.
            epoch (`int`): The pass that goes on; others are read in full.
            batches_done (`int`): Those of it that were trained on.
        """
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.resumed_epoch = epoch
        self.batches_done = batches_done


def _of_whole_batches(rows: Iterable[Any], batch_size: int) -> Iterator[Any]:
    """The rows but for the last ones that fill no batch."""
    rows = iter(rows)
    while len(batch := list(islice(rows, batch_size))) == batch_size:
        yield from batch
