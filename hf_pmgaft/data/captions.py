"""Captions of images: columns of texts -> token ids beside the pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ..models.processors import padding_id, tokenizer_of
from ..prompts import prompt_name, shows, without_invisible

# Public sets call them so: CC3M, Flickr30k, text-to-image sets, webdataset folders, COCO, LAION.
CAPTION_COLUMNS = ("caption", "captions", "text", "txt", "sentences", "sentence", "raw", "TEXT")
TEXT_TYPES = ("string", "large_string", "null")
# As CSV files hold lists of texts.
LIST_IN_TEXT = re.compile(r"\s*\[\s*(['\"]).*\1\s*\]\s*", re.DOTALL)
# A tokenizer that does not know its length says a number beyond all lengths.
UNKNOWN_LENGTH = 1e6


class Captions:
    """Reads the captions of a set's rows, as texts or as token ids.

    A cell holds a text, or a list of texts: several captions of the image. The texts of a `ClassLabel` column are its
    names. White space is collapsed and invisible characters are left out; what is empty then is no caption.

    Args:
        caption_column (`str` or `list[str]`): Caption columns, several also as one text with commas; `column.field`
            for a field of a column of records, such as `json.caption` of a webdataset. `"auto"` takes the first
            usual name.
        columns (`list[str]`): The columns of the set.
        features (`Mapping`): Their types, as far as they are known.
        processor (`CLIPProcessor` or tokenizer): Its tokenizer makes the token ids, cut to `model_max_length`.

    Raises:
        ValueError: for a column that the set does not have or that holds no texts, and for a processor without a
            tokenizer that knows its length.

    Example:
        >>> captions = Captions("auto", ["image", "caption"], {}, processor)
        >>> captions.texts({"caption": ["the red  disc", "", "a disc"]}, position=0)
        ['the red disc', 'a disc']
        >>> captions.tokens({"caption": ["the red disc", "a disc"]}, position=0)["input_ids"].shape
        torch.Size([2, 5])
    """

    def __init__(self, caption_column: str | Sequence[str], columns: Sequence[str], features: Mapping, processor: Any):
        self.tokenizer = _tokenizer_for_captions(processor)
        self.paths = {name: _path(name, columns) for name in _column_list(caption_column, columns)}
        types = {name: _text_type(name, path, features) for name, path in self.paths.items()}
        self.class_names = {name: kind.names for name, kind in types.items() if isinstance(kind, datasets.ClassLabel)}

    def holds_text(self, column: str) -> bool:
        """Whether a column is read as captions, and not as the names of classes."""
        return column in self.paths and column not in self.class_names

    def texts(self, row: Mapping[str, Any], position: int | str) -> list[str]:
        """Gives the captions of one row, column by column.

        Args:
            row (`dict`): The row as the set holds it.
            position (`int` or `str`): Its number, for messages.

        Raises:
            ValueError: for a row without any caption, and a cell that holds something else.
        """
        texts = []
        for name, path in self.paths.items():
            cell = _follow(row, path)
            values = cell if isinstance(cell, (list, tuple, np.ndarray)) else [cell]
            texts += [self._text(value, name, position) for value in values]

        captions = [text for text in texts if text]
        if not captions:
            raise ValueError(
                f"Row {position} has no caption: there is no text in {', '.join(map(repr, self.paths))}. Write one or "
                "remove the row; --check_data lists all such rows beforehand."
            )
        return captions

    def tokens(self, row: Mapping[str, Any], position: int | str) -> dict[str, torch.Tensor]:
        """Gives the `input_ids` and `attention_mask` of one row, `[C,L]` int64: C captions, padded to the longest."""
        encoded = self.tokenizer(self.texts(row, position), truncation=True)["input_ids"]
        ids = [torch.tensor(tokens, dtype=torch.long) for tokens in encoded]
        masks = [torch.ones_like(tokens) for tokens in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=padding_id(self.tokenizer)),
            "attention_mask": pad_sequence(masks, batch_first=True),
        }

    def _text(self, value: Any, name: str, position: int | str) -> str:
        """One caption with single spaces; the empty text for none."""
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
        if LIST_IN_TEXT.fullmatch(value):
            raise ValueError(
                f"Row {position} has a list that is written as a text, {value!r:.60}, in the caption column {name!r}, "
                "which would be one caption. Make a list of texts of it, as `json.loads` does."
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Row {position} has half a character in the caption column {name!r}, {value!r:.60}, which no "
                "tokenizer reads. Correct the text."
            ) from error
        return " ".join(without_invisible(value).split()) if shows(value) else ""


def _tokenizer_for_captions(processor: Any) -> Any:
    """The processor's tokenizer, or `ValueError` if it cannot cut captions to what the text tower takes."""
    tokenizer = tokenizer_of(processor)
    if not hasattr(tokenizer, "model_max_length"):
        raise ValueError(
            f"You passed caption_column with a {type(processor).__name__}, which has no tokenizer to make token ids "
            "of the captions. Pass the model's CLIPProcessor."
        )
    if tokenizer.model_max_length > UNKNOWN_LENGTH:
        raise ValueError(
            f"The {type(tokenizer).__name__} names no model_max_length, so a long caption would not be cut to what "
            "the text tower takes. Set `processor.tokenizer.model_max_length` (CLIP: 77)."
        )
    return tokenizer


def _column_list(caption_column: str | Sequence[str], columns: Sequence[str]) -> list[str]:
    """The names of the caption columns, each once; one text may hold several with commas."""
    if caption_column == "auto":
        usual = [name for name in CAPTION_COLUMNS if name in columns]
        if not usual:
            raise ValueError(
                f"The data set has none of the usual caption columns {list(CAPTION_COLUMNS)}; it has {list(columns)}. "
                "Pass the right one as caption_column."
            )
        return usual[:1]

    texts = [caption_column] if isinstance(caption_column, str) else caption_column
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(
            f"You passed caption_column={caption_column!r}, which is no name of a column. Pass a name, a list of "
            f"names, or 'auto'; the data set has {list(columns)}."
        )
    names = []
    for text in texts:
        # A column may have a comma in its own name.
        names += [text] if text in columns else text.split(",")
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
        elif isinstance(value, Mapping):
            value = value.get(field)
        else:
            value = None
    return value


def _text_type(name: str, path: Sequence[str], features: Mapping) -> Any:
    """The type of the texts in a column, `None` if it is not known; `ValueError` if it holds no texts."""
    kind = features.get(path[0])
    for field in path[1:]:
        kind = getattr(kind, "feature", kind)  # of a list, what it holds
        if isinstance(kind, Mapping) and field not in kind:
            raise ValueError(
                f"The data set has no caption column {name!r}: there is no {field!r} in {path[0]!r}, which has "
                f"{sorted(kind)}. Pass the right one as caption_column."
            )
        kind = kind[field] if isinstance(kind, Mapping) else None
    kind = getattr(kind, "feature", kind)

    holds_text = isinstance(kind, datasets.ClassLabel) or getattr(kind, "dtype", None) in TEXT_TYPES
    if kind is None or holds_text:
        return kind
    raise ValueError(
        f"You passed caption_column={name!r}, but that column is {kind}, which is no text. Pass a column of texts or "
        f"of lists of texts{_hint(name, kind)}."
    )


def _hint(name: str, records: Any) -> str:
    """What a message adds where a column holds records: a field that may have been meant."""
    if not (isinstance(records, Mapping) and records):
        return ""
    field = f"{name}.{next(iter(records))}"
    return f", or a field such as {field!r}"
