"""Captions of images: columns of texts -> token ids beside the pixels; one caption per image, chosen by its seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from .noise import uniform_noise
from .prompts import prompt_name

# Public sets call them so: CC3M, Flickr30k, text-to-image sets, webdataset folders, COCO, LAION.
CAPTION_COLUMNS = ("caption", "captions", "text", "txt", "sentences", "sentence", "raw", "TEXT")
TEXT_TYPES = ("string", "large_string", "null")
# The numbers that choose captions are a stream of their own, apart from the augmentation's and the attack's.
STREAM = 800


class Captions:
    """The captions of a set's rows as token ids.

    A cell holds a text, or a list of texts: several captions of the image. The texts of a `ClassLabel` column are its
    names. White space is collapsed, and what is empty then is no caption.

    Args:
        given (`str` or `list[str]`): Caption columns, several also as one text with commas; `column.field` for a field
            of a column of records, such as `json.caption` of a webdataset. `"auto"` takes the first usual name.
        columns (`list[str]`): The columns of the set.
        features (`Mapping`): Their types, as far as they are known.
        processor (`CLIPProcessor` or tokenizer): Its tokenizer makes the token ids, cut to `model_max_length`.
    """

    def __init__(self, given: str | Sequence[str], columns: Sequence[str], features: Mapping, processor: Any):
        self.tokenizer = _tokenizer(processor)
        self.paths = {name: _path(name, columns) for name in _names(given, columns)}
        types = {name: _text_type(name, path, features) for name, path in self.paths.items()}
        self.class_names = {name: kind.names for name, kind in types.items() if isinstance(kind, datasets.ClassLabel)}

    def holds_text(self, column: str) -> bool:
        """Whether a column is read as captions, and not as the names of classes."""
        return column in self.paths and column not in self.class_names

    def texts(self, row: Mapping[str, Any], position: int | str) -> list[str]:
        """The captions of one row, at least one, column by column."""
        found = []
        for name, path in self.paths.items():
            cell = _follow(row, path)
            for value in cell if isinstance(cell, (list, tuple, np.ndarray)) else [cell]:
                found.append(self._text(value, name, position))
        texts = [text for text in found if text]
        if not texts:
            raise ValueError(
                f"Row {position} has no caption: there is no text in {', '.join(map(repr, self.paths))}. Write one or "
                "remove the row; --check_data lists all such rows before training."
            )
        return texts

    def tokens(self, row: Mapping[str, Any], position: int | str) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` of one row, `[C,L]` int64: C captions, padded to the longest of them."""
        ids = self.tokenizer(self.texts(row, position), truncation=True)["input_ids"]
        ids = [torch.tensor(tokens, dtype=torch.long) for tokens in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=padding_id(self.tokenizer)),
            "attention_mask": pad_sequence([torch.ones_like(tokens) for tokens in ids], batch_first=True),
        }

    def _text(self, value: Any, name: str, position: int | str) -> str:
        """A caption with single spaces; the empty text for none."""
        if value is None:
            return ""
        if name in self.class_names and isinstance(value, (int, np.integer)):
            names = self.class_names[name]
            return prompt_name(names[value]) if 0 <= value < len(names) else ""
        if not isinstance(value, str):
            raise ValueError(
                f"Row {position} has {value!r:.80} in the caption column {name!r}, which is {type(value).__name__} "
                f"and no text. Pass a column of texts or of lists of texts as caption_column{_hint(name, value)}."
            )
        return " ".join(value.split())


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


def padding_id(processor: Any) -> int:
    """What fills up token ids: the tokenizer's padding, or 0 where there is none to ask."""
    return getattr(getattr(processor, "tokenizer", processor), "pad_token_id", None) or 0


def _tokenizer(processor: Any) -> Any:
    tokenizer = getattr(processor, "tokenizer", processor)
    if not hasattr(tokenizer, "model_max_length"):
        raise ValueError(
            f"You passed caption_column with a {type(processor).__name__}, which has no tokenizer to make token ids "
            "of the captions. Pass the model's CLIPProcessor."
        )
    if tokenizer.model_max_length > 1e6:  # what a tokenizer says that does not know
        raise ValueError(
            f"The {type(tokenizer).__name__} names no model_max_length, so a long caption would not be cut to what "
            "the text tower takes. Set `processor.tokenizer.model_max_length` (CLIP: 77)."
        )
    return tokenizer


def _names(given: str | Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names of the caption columns, several also in one text with commas."""
    if given == "auto":
        usual = [name for name in CAPTION_COLUMNS if name in columns]
        if not usual:
            raise ValueError(
                f"The data set has none of the usual caption columns {list(CAPTION_COLUMNS)}; it has {list(columns)}. "
                "Pass the right one as caption_column."
            )
        return usual[:1]
    texts = [given] if isinstance(given, str) else list(given)
    names = [name for text in texts for name in ([text] if text in columns else text.split(","))]
    return list(dict.fromkeys(name.strip() for name in names))


def _path(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """`json.caption` -> the column `json` and its field `caption`; a column may have dots in its own name."""
    column, fields = name, []
    while column not in columns and "." in column:
        column, _, field = column.rpartition(".")
        fields.insert(0, field)
    if column not in columns:
        raise ValueError(
            f"The data set has no caption column {name!r}; it has {list(columns)}. Pass one of them as "
            "caption_column, or several with commas."
        )
    return column, *fields


def _follow(row: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at the end of a path; of a list of records, the list of their values."""
    value = row[path[0]]
    for field in path[1:]:
        if isinstance(value, (list, tuple)):
            value = [record.get(field) for record in value if isinstance(record, Mapping)]
        else:
            value = value.get(field) if isinstance(value, Mapping) else None
    return value


def _text_type(name: str, path: Sequence[str], features: Mapping) -> Any:
    """The type of the texts in a column, `None` if it is not known; `ValueError` if it holds none."""
    kind = features.get(path[0])
    for field in path[1:]:
        kind = getattr(kind, "feature", kind)
        if isinstance(kind, Mapping) and field not in kind:
            raise ValueError(
                f"The data set has no caption column {name!r}: there is no {field!r} in {path[0]!r}, which has "
                f"{sorted(kind)}. Pass the right one as caption_column."
            )
        kind = kind[field] if isinstance(kind, Mapping) else None
    kind = getattr(kind, "feature", kind)
    if kind is None or isinstance(kind, datasets.ClassLabel) or getattr(kind, "dtype", None) in TEXT_TYPES:
        return kind
    raise ValueError(
        f"You passed caption_column={name!r}, but that column is {kind}, which is no text. Pass a column of texts or "
        f"of lists of texts{_hint(name, kind)}."
    )


def _hint(name: str, records: Any) -> str:
    return (
        f", or a field such as {f'{name}.{next(iter(records))}'!r}" if isinstance(records, Mapping) and records else ""
    )


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
