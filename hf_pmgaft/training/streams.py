"""Streams in training: which pass a run is in, where in it a resumed run goes on, and what gives no step at all."""

from __future__ import annotations

import logging
from itertools import islice, pairwise
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainerCallback

from ..config import PMGAFTConfig
from ..data.streams import StreamingImages
from ..fingerprints import digest

logger = logging.getLogger(__name__)

NUM_FIRST_ROWS = 256  # that are looked at for the order of labels
POSITION = "stream.position"  # of a checkpoint: the pass, and the steps made in it


class Passes(TrainerCallback):
    """Counts the passes over a stream, which has no length by which Trainer could tell them apart.

    Attributes:
        number (`int`): Of the pass that runs, from 0.
        first_step (`int`): Steps that were made before it.

    Raises:
        ValueError: at the end of a pass in which no step was made, after which others would follow for ever.
    """

    def __init__(self):
        self.number = 0
        self.first_step = 0

    def begin_at(self, number: int, first_step: int) -> None:
        """Training begins in this pass."""
        self.number = number
        self.first_step = first_step

    def position(self, step: int) -> torch.Tensor:
        """The pass and the steps made in it, `[2]`, int64."""
        return torch.tensor([self.number, step - self.first_step])

    def on_epoch_end(self, args, state, control, **kwargs):
        if state.global_step == self.first_step:
            raise ValueError(no_step_message(f"Pass {self.number} over the stream", args))
        if not control.should_training_stop:
            self.begin_at(self.number + 1, state.global_step)


def rows_per_batch(args: PMGAFTConfig) -> int:
    """Images that all processes together take at once."""
    return args.train_batch_size * (1 if args.accelerator_config.split_batches else args.world_size)


def no_step_message(what: str, args: PMGAFTConfig) -> str:
    """Says that a stream, or a pass over it, is too short for a step, or cannot be read again."""
    return (
        f"{what} gives no step of {rows_per_batch(args) * args.gradient_accumulation_steps} images "
        f"(dataloader_drop_last={args.dataloader_drop_last}, {args.dataloader_num_workers} workers), so nothing would "
        "be trained. Pass a stream with more rows that can be read again, a smaller batch, or fewer "
        "gradient_accumulation_steps."
    )


def check_stream(stream: Any, args: PMGAFTConfig) -> None:
    """Raises `ValueError` for a stream that gives no step, and warns of one that is read class by class.

    Only the first rows are read, without decoding. Streams that may not be read twice are not looked at.
    """
    if not isinstance(stream, IterableDataset):
        return
    if not isinstance(stream, StreamingImages):
        if args.dataloader_drop_last:
            raise ValueError(
                "You passed dataloader_drop_last with a stream of pixel_values, of which the loader drops nothing. "
                "Leave it out and let the stream end with a whole batch, or pass a stream of images."
            )
        return
    rows = list(islice(stream.in_order(), NUM_FIRST_ROWS))
    if not rows:
        raise ValueError("The stream has no rows, so there is nothing to train on. Pass another set or split.")
    if not _has_a_step(stream, args):
        raise ValueError(no_step_message("The stream", args))

    is_mixed = stream.order is not None and (
        stream.dataset.num_shards > 1 or len(rows) < min(NUM_FIRST_ROWS, stream.order["buffer_size"] + 1)
    )
    if stream.label_column is not None and args.process_index == 0 and not is_mixed:
        _warn_of_order([row[stream.label_column] for row in rows], stream.order)


def stream_fingerprint(stream: Any, args: PMGAFTConfig) -> dict[str, Any]:
    """What a run over a stream must share with another for one to go on in the other's pass, to the bit.

    Nothing for a set of any other kind.
    """
    if not isinstance(stream, IterableDataset):
        return {}
    batches = {
        "images_per_step": rows_per_batch(args) * args.gradient_accumulation_steps,
        "drop_last": args.dataloader_drop_last,
        "workers": args.dataloader_num_workers,
    }
    if args.dataloader_num_workers:  # each of which makes batches of its own part
        batches |= {"processes": args.world_size, "images_per_batch": args.train_batch_size}
    entries = {"stream": {"batches": batches}}
    if not isinstance(stream, StreamingImages):
        return entries

    stream.set_epoch(0)
    first = [_as_stored(row, stream) for row in islice(stream.in_order(), 4)]
    entries["stream"] |= {
        "order": stream.order,
        "first_rows": digest(first),
        "datasets": datasets.__version__,  # others may shuffle in another way
    }
    return entries


def _has_a_step(stream: StreamingImages, args: PMGAFTConfig) -> bool:
    """Whether a pass has as many batches as a step takes, by a loader that decodes nothing."""
    size, needed = rows_per_batch(args), args.gradient_accumulation_steps
    is_dealt_out = args.accelerator_config.dispatch_batches is not False and not args.accelerator_config.split_batches
    if is_dealt_out and not args.dataloader_drop_last:  # the last batch may be of one process alone
        size, needed = args.train_batch_size, (needed - 1) * args.world_size + 1
    loader = DataLoader(
        stream.in_order(),
        batch_size=size,
        drop_last=args.dataloader_drop_last,
        num_workers=args.dataloader_num_workers,
        collate_fn=len,
    )
    return sum(1 for _ in islice(loader, needed)) == needed


def _warn_of_order(labels: list[Any], order: dict[str, int] | None) -> None:
    """Warns if labels come in blocks, so that a batch holds few classes."""
    blocks = 1 + sum(before != label for before, label in pairwise(labels))
    if blocks > len({str(label) for label in labels}) or blocks > len(labels) / 4:
        return
    if order is None:
        mixing = "and the stream is read in order (no shuffle_buffer). Shuffle it"
    else:
        mixing = f"and a shuffle_buffer of {order['buffer_size']} mixes neighbours alone. Make it larger"
    logger.warning(
        "Labels come sorted: the first %d rows hold %d classes in blocks, %s, or load the set without streaming, lest "
        "each batch hold few classes.",
        len(labels),
        blocks,
        mixing,
    )


def _as_stored(row: dict[str, Any], stream: StreamingImages) -> bytes:
    """The image of a row as its file holds it, if it is one, and its label."""
    image = row[stream.image_column]
    stored = image.get("bytes") if isinstance(image, dict) else None
    return (stored or b"") + str(row.get(stream.label_column)).encode()
