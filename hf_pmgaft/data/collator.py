"""Examples -> batches, checked while they are still on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..models.processors import padding_id, pixel_statistics
from ..noise import uniform_noise
from .rows import content_id

# Half precision and resizing after normalisation leave small excesses; a wrong scale leaves large ones.
PIXEL_TOLERANCE = 0.05
# The numbers that choose captions are a stream of their own, apart from the augmentation's and the attack's.
CAPTION_STREAM = 800


class Collator:
    """Stacks training examples to a batch, and refuses one that cannot be trained on while it is still on the CPU.

    Batches hold `pixel_values` `[B,3,H,W]`, `labels` `[B]` and `sample_id` `[B]`; of rows with `input_ids` also
    `input_ids` and `attention_mask` `[B,C,L]` and `num_captions` `[B]`, see [`choose_captions`].

    Args:
        processor (`CLIPProcessor`): Its statistics bound what pixel values can be.
        num_classes (`int`, *optional*): Labels must lie below it. Without it rows with captions need no labels, and
            each is a class of its own then: its label is its sample id.
        collate (`Callable`, *optional*): A collator of one's own; its batches are checked all the same.
        needs_labels (`bool`): Whether rows without captions need labels.

    Example:
        >>> from hf_pmgaft.data import training_examples
        >>> examples = training_examples(dataset, processor)
        >>> batch = Collator(processor, num_classes=4)([examples[0], examples[5]])
        >>> batch["pixel_values"].shape, batch["labels"].tolist(), batch["sample_id"].tolist()
        (torch.Size([2, 3, 16, 16]), [0, 1], [0, 5])
    """

    def __init__(
        self,
        processor: Any,
        num_classes: int | None = None,
        collate: Callable | None = None,
        needs_labels: bool = True,
    ):
        mean, std = (torch.tensor(values) for values in pixel_statistics(processor))
        self.low = (0 - mean) / std
        self.high = (1 - mean) / std
        self.num_classes = num_classes
        self.needs_labels = needs_labels
        self.collate = collate or partial(stack, pad_token_id=padding_id(processor))

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Makes a batch of rows.

        Raises:
            ValueError: for rows without pixels or labels, labels outside the classes, and pixels that the processor
                cannot have made; the message names the rows.
        """
        batch = dict(self.collate(rows))
        self._check_keys(batch)
        if "sample_id" not in batch:
            batch["sample_id"] = torch.tensor([content_id(pixels) for pixels in batch["pixel_values"]])

        self._check_pixels(batch["pixel_values"], batch["sample_id"])
        labels = batch.get("labels", batch["sample_id"])
        self._check_labels(labels, batch["sample_id"])
        batch["labels"] = labels.long()
        if "input_ids" in batch:
            batch.update(check_captions(batch))
        return batch

    def _check_keys(self, batch: Mapping[str, torch.Tensor]) -> None:
        needs_no_labels = self.num_classes is None and ("input_ids" in batch or not self.needs_labels)
        needed = ("pixel_values",) if needs_no_labels else ("pixel_values", "labels")
        missing = [name for name in needed if name not in batch]
        if missing:
            raise ValueError(
                f"The batch has no {' and no '.join(missing)}; it has {sorted(batch)}. Pass rows with `pixel_values` "
                "and an integer in `labels`."
            )

    def _check_labels(self, labels: torch.Tensor, ids: torch.Tensor) -> None:
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError(
                f"The labels are {labels.dtype} of shape {list(labels.shape)}, which name no class per image. Pass "
                "one integer per row."
            )
        if self.num_classes is None:
            return

        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            raise ValueError(
                f"Rows {ids[outside].tolist()} have the labels {labels[outside].tolist()}, but there are "
                f"{self.num_classes} classes (0 to {self.num_classes - 1}). Correct them or pass all class names."
            )

    def _check_pixels(self, pixels: torch.Tensor, ids: torch.Tensor) -> None:
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(
                f"The pixel values are {pixels.dtype} of shape {list(pixels.shape)}, not floating point [B,3,H,W] as "
                "a processor makes them. Pass images, or pixel values made by `processing_class`."
            )

        # Smallest and largest value of each image and channel, [B,3]
        flat = pixels.flatten(2)
        low, high = flat.amin(2), flat.amax(2)
        broken = ~(torch.isfinite(low) & torch.isfinite(high)).all(1)
        if broken.any():
            raise ValueError(f"The images of rows {ids[broken].tolist()} hold NaN or infinite pixels. Remove them.")

        out_of_range = ((low < self.low - PIXEL_TOLERANCE) | (high > self.high + PIXEL_TOLERANCE)).any(1)
        if out_of_range.any():
            raise ValueError(
                f"The pixel values of rows {ids[out_of_range].tolist()} span {low.min():.2f} to {high.max():.2f}, but "
                f"this processor's statistics allow {self.low.min():.2f} to {self.high.max():.2f}: they were made by "
                "another processor or not normalised. Pass images, or pixel values made by `processing_class`."
            )


def stack(rows: Sequence[dict[str, Any]], pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Stacks rows of tensors and integers, key by key, and captions together. Other entries are left out.

    Example:
        >>> sorted(stack([{"pixel_values": torch.zeros(3, 4, 4), "label": 1, "file": "a.png"}]))
        ['labels', 'pixel_values']
    """
    batch = stack_captions(rows, pad_token_id) if "input_ids" in rows[0] else {}
    for name, value in rows[0].items():
        if name in batch:
            continue
        if name == "pixel_values":
            batch[name] = _stack_pixels(rows)
        elif isinstance(value, torch.Tensor):
            batch[name] = torch.stack([row[name] for row in rows])
        elif isinstance(value, (int, np.integer)):
            batch[name] = torch.tensor([int(row[name]) for row in rows])

    if "label" in batch and "labels" not in batch:
        batch["labels"] = batch.pop("label")
    return batch


def _stack_pixels(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """The pixels of rows that hold tensors, arrays or nested lists, `[B,3,H,W]`."""
    images = []
    for row in rows:
        pixels = row["pixel_values"]
        if not isinstance(pixels, torch.Tensor):
            pixels = torch.as_tensor(np.asarray(pixels, dtype=np.float32))
        images.append(pixels)

    shapes = sorted({tuple(pixels.shape) for pixels in images})
    if len(shapes) > 1:
        raise ValueError(
            f"The images of rows {[row.get('sample_id', '?') for row in rows]} have several shapes: {shapes}, which "
            "make no batch. Use a processor that resizes and crops."
        )
    return torch.stack(images)


# ---- Captions ----


def stack_captions(rows: Sequence[Mapping[str, Any]], pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Stacks the token ids of rows that have different numbers of captions, of different lengths.

    Args:
        rows (`list[dict]`): `input_ids`, and `attention_mask` if there is one: `[C,L]`, or `[L]` for a single caption.
        pad_token_id (`int`): Fills up `input_ids`.

    Returns:
        `dict`: `input_ids` and `attention_mask` `[B,C,L]`, int64, with the most captions and the greatest length of
            any row, unused captions being copies of the row's first; `num_captions` `[B]`, int64.

    Raises:
        ValueError: for token ids that make no captions; the message names the row.

    Example:
        >>> batch = stack_captions([{"input_ids": [[0, 5, 1], [0, 1, 1]]}, {"input_ids": [0, 7, 8, 1]}])
        >>> batch["input_ids"].shape, batch["num_captions"].tolist()
        (torch.Size([2, 2, 4]), [2, 1])
    """
    ids, masks = [], []
    for row in rows:
        name = row.get("sample_id", "?")
        tokens = _token_table(row["input_ids"], name)
        ids.append(tokens)
        if "attention_mask" in row:
            masks.append(_token_table(row["attention_mask"], name))
        else:
            masks.append(torch.ones_like(tokens))

    count = max(len(tokens) for tokens in ids)
    length = max(tokens.shape[1] for tokens in ids)
    return {
        "input_ids": torch.stack([_fill_up(tokens, count, length, pad_token_id) for tokens in ids]),
        "attention_mask": torch.stack([_fill_up(mask, count, length, 0) for mask in masks]),
        "num_captions": torch.tensor([len(tokens) for tokens in ids]),
    }


def check_captions(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gives the captions of any collator's batch in the shapes of `stack_captions`.

    Raises:
        ValueError: if they do not fit the images.

    Example:
        >>> batch = {"pixel_values": images, "input_ids": torch.ones(16, 5, dtype=torch.long)}
        >>> check_captions(batch)["input_ids"].shape
        torch.Size([16, 1, 5])
    """
    ids, size = batch["input_ids"], len(batch["pixel_values"])
    mask = batch.get("attention_mask", torch.ones_like(ids))
    if ids.ndim not in (2, 3) or ids.is_floating_point() or len(ids) != size or mask.shape != ids.shape:
        raise ValueError(
            f"The captions are {ids.dtype} of shape {list(ids.shape)} with an attention mask {list(mask.shape)}, for "
            f"{size} images. Pass integers [B,L], or [B,C,L] for C captions of each image, and a mask of the same "
            "shape or none."
        )
    if ids.ndim == 2:
        ids, mask = ids.unsqueeze(1), mask.unsqueeze(1)

    counts = batch.get("num_captions", torch.full((size,), ids.shape[1]))
    if counts.shape != (size,) or ((counts < 1) | (counts > ids.shape[1])).any():
        raise ValueError(
            f"The batch holds num_captions={counts.tolist()} for {size} images with room for {ids.shape[1]} captions "
            "each. Pass one number per image, from 1 to that."
        )
    return {"input_ids": ids.long(), "attention_mask": mask.long(), "num_captions": counts.long()}


def choose_captions(batch: Mapping[str, torch.Tensor], seeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses one caption of each image, uniformly among its own, by the image's seed and nothing else.

    Args:
        batch (`dict`): `input_ids` and `attention_mask` `[B,C,L]`, `num_captions` `[B]`, as the collator makes them.
        seeds (`torch.Tensor`): `[B]`, int64, such as `sample_seeds(seed, step, sample_id)`.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `input_ids` and `attention_mask` of the chosen captions, `[B,L]`.

    Example:
        >>> batch = stack_captions([{"input_ids": [[0, 5, 1], [0, 6, 1]]}, {"input_ids": [[0, 7, 1]]}])
        >>> ids, mask = choose_captions(batch, seeds=torch.tensor([10, 11]))
        >>> ids.shape, ids[1].tolist()
        (torch.Size([2, 3]), [0, 7, 1])
    """
    # A number below 1 in 24 bits times a count of that many bits or fewer rounds to less than the count.
    numbers = uniform_noise(seeds, (), CAPTION_STREAM)
    chosen = (numbers * batch["num_captions"]).long()
    rows = torch.arange(len(chosen), device=chosen.device)
    return batch["input_ids"][rows, chosen], batch["attention_mask"][rows, chosen]


def _fill_up(table: torch.Tensor, count: int, length: int, value: int) -> torch.Tensor:
    """A row's captions `[C,L]` as `[count,length]`: ends filled with a value, missing captions with the first."""
    table = F.pad(table, (0, length - table.shape[1]), value=value)
    return torch.cat([table, table[:1].expand(count - len(table), -1)])


def _token_table(value: Any, row: Any) -> torch.Tensor:
    """Token ids or mask of a row as `[C,L]`, int64."""
    try:
        table = torch.as_tensor(value)
        if table.ndim == 1:
            table = table.unsqueeze(0)
        if table.ndim == 2 and table.numel() and not table.is_floating_point():
            return table.long()
        reason = f"it is {table.dtype} of shape {list(table.shape)}"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise ValueError(
        f"The token ids or mask of row {row} make no captions ({reason}). Pass integers [L], or [C,L] for C captions "
        "padded to one length."
    )
