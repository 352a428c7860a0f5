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


class Collator:
    """Stacks examples and refuses batches that cannot be trained on, while they are still on the CPU.

    Batches hold `pixel_values` `[B,3,H,W]`, `labels` `[B]` and `sample_id` `[B]`; of rows with `input_ids` also
    `input_ids` and `attention_mask` `[B,C,L]` and `num_captions` `[B]`, see [`choose_captions`].

    Args:
        processor (`CLIPProcessor`): Its statistics bound what pixel values can be.
        num_classes (`int`, *optional*): Labels must lie below it. Without it rows with captions need no labels, and
            each is a class of its own then: its label is its sample id.
        collate (`Callable`, *optional*): A collator of one's own; its batches are checked all the same.
        needs_labels (`bool`): Whether rows without captions need labels.
    """

    def __init__(
        self,
        processor: Any,
        num_classes: int | None = None,
        collate: Callable | None = None,
        needs_labels: bool = True,
    ):
        mean, std = (torch.tensor(values) for values in pixel_statistics(processor))
        self.low, self.high = (0 - mean) / std, (1 - mean) / std
        self.num_classes = num_classes
        self.needs_labels = needs_labels
        self.collate = collate or partial(stack, pad_token_id=padding_id(processor))

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(self.collate(rows))
        unlabelled = self.num_classes is None and ("input_ids" in batch or not self.needs_labels)
        needed = ("pixel_values",) if unlabelled else ("pixel_values", "labels")
        missing = [name for name in needed if name not in batch]
        if missing:
            raise ValueError(
                f"The batch has no {' and no '.join(missing)}; it has {sorted(batch)}. Pass rows with `pixel_values` "
                "and an integer in `labels`."
            )
        if "sample_id" not in batch:
            batch["sample_id"] = torch.tensor([content_id(pixels) for pixels in batch["pixel_values"]])
        self._check_pixels(batch["pixel_values"], batch["sample_id"])
        batch["labels"] = self._check_labels(batch.get("labels", batch["sample_id"]), batch["sample_id"])
        if "input_ids" in batch:
            batch.update(check_captions(batch))
        return batch

    def _check_labels(self, labels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        if labels.ndim != 1 or labels.is_floating_point():
            raise ValueError(
                f"The labels are {labels.dtype} of shape {list(labels.shape)}, which name no class per image. Pass "
                "one integer per row."
            )
        if self.num_classes is None:
            return labels.long()
        outside = (labels < 0) | (labels >= self.num_classes)
        if outside.any():
            raise ValueError(
                f"Rows {ids[outside].tolist()} have the labels {labels[outside].tolist()}, but there are "
                f"{self.num_classes} classes (0 to {self.num_classes - 1}). Correct them or pass all class names."
            )
        return labels.long()

    def _check_pixels(self, pixels: torch.Tensor, ids: torch.Tensor) -> None:
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(
                f"The pixel values are {pixels.dtype} of shape {list(pixels.shape)}, not floating point [B,3,H,W] as "
                "a processor makes them. Pass images, or pixel values made by `processing_class`."
            )
        flat = pixels.flatten(2)
        low, high = flat.amin(2), flat.amax(2)
        broken = ~(torch.isfinite(low) & torch.isfinite(high)).all(1)
        if broken.any():
            raise ValueError(f"The images of rows {ids[broken].tolist()} hold NaN or infinite pixels. Remove them.")
        # Half precision and resizing after normalisation leave small excesses; a wrong scale leaves large ones.
        wrong = ((low < self.low - 0.05) | (high > self.high + 0.05)).any(1)
        if wrong.any():
            raise ValueError(
                f"The pixel values of rows {ids[wrong].tolist()} span {low.min():.2f} to {high.max():.2f}, but this "
                f"processor's statistics allow {self.low.min():.2f} to {self.high.max():.2f}: they were made by "
                "another processor or not normalised. Pass images, or pixel values made by `processing_class`."
            )


def stack(rows: Sequence[dict[str, Any]], pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Batches rows of tensors and integers, key by key, and captions together; other entries are left out."""
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
    pixels = [row["pixel_values"] for row in rows]
    pixels = [x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x, dtype=np.float32)) for x in pixels]
    shapes = sorted({tuple(x.shape) for x in pixels})
    if len(shapes) > 1:
        raise ValueError(
            f"The images of rows {[row.get('sample_id', '?') for row in rows]} have several shapes: {shapes}, which "
            "make no batch. Use a processor that resizes and crops."
        )
    return torch.stack(pixels)


# The numbers that choose captions are a stream of their own, apart from the augmentation's and the attack's.
STREAM = 800


def stack_captions(rows: Sequence[Mapping[str, Any]], pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Batches the token ids of rows that have different numbers of captions, of different lengths.

    Args:
        rows (`list[dict]`): `input_ids`, and `attention_mask` if there is one: `[C,L]`, or `[L]` for a single caption.
        pad_token_id (`int`): Fills up `input_ids`.

    Returns:
        `dict`: `input_ids` and `attention_mask` `[B,C,L]`, int64, with the most captions and the greatest length of
            any row, unused captions being copies of the row's first; `num_captions` `[B]`, int64.
    """
    ids = [_token_table(row["input_ids"], row.get("sample_id", "?")) for row in rows]
    masks = [
        _token_table(row["attention_mask"], row.get("sample_id", "?"))
        if "attention_mask" in row
        else torch.ones_like(x)
        for row, x in zip(rows, ids, strict=True)
    ]
    count, length = max(len(x) for x in ids), max(x.shape[1] for x in ids)

    def fill(table: torch.Tensor, value: int) -> torch.Tensor:
        table = F.pad(table, (0, length - table.shape[1]), value=value)
        return torch.cat([table, table[:1].expand(count - len(table), -1)])

    return {
        "input_ids": torch.stack([fill(x, pad_token_id) for x in ids]),
        "attention_mask": torch.stack([fill(x, 0) for x in masks]),
        "num_captions": torch.tensor([len(x) for x in ids]),
    }


def check_captions(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The captions of any collator's batch in the shapes of `stack_captions`, or `ValueError` if they do not fit."""
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
    """One caption of each image, uniformly among its own, a function of the image's seed alone.

    Args:
        batch (`dict`): `input_ids` and `attention_mask` `[B,C,L]`, `num_captions` `[B]`, as the collator makes them.
        seeds (`torch.Tensor`): `[B]`, int64, such as `sample_seeds(seed, step, sample_id)`.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `input_ids` and `attention_mask` of the chosen captions, `[B,L]`.
    """
    # A number below 1 in 24 bits times a count of that many bits or fewer rounds to less than the count.
    chosen = (uniform_noise(seeds, (), STREAM) * batch["num_captions"]).long()
    rows = torch.arange(len(chosen), device=chosen.device)
    return batch["input_ids"][rows, chosen], batch["attention_mask"][rows, chosen]


def _token_table(value: Any, row: Any) -> torch.Tensor:
    """Token ids of a row as `[C,L]`, int64."""
    try:
        table = torch.as_tensor(value)
        table = table.unsqueeze(0) if table.ndim == 1 else table
        if table.ndim == 2 and table.numel() and not table.is_floating_point():
            return table.long()
        reason = f"it is {table.dtype} of shape {list(table.shape)}"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise ValueError(
        f"The token ids or mask of row {row} make no captions ({reason}). Pass integers [L], or [C,L] for C captions "
        "padded to one length."
    )
