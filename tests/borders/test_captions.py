"""Captions as texts: what a cell of a caption column holds, and what is passed as `caption_column`."""

import datasets
import numpy as np
import pytest
import torch
from support.borders import Refused, check, outcomes

from hf_pmgaft.data import Captions

NONE = Refused("Row 7 has no caption")
NO_TEXT = Refused("and no text. Pass a column of texts or of lists of texts as caption_column")

CELLS = {
    "a text": ("the red disc", ["the red disc"]),
    "a list": (["the red disc", "a disc"], ["the red disc", "a disc"]),
    "an array": (np.array(["the red disc", "a disc"]), ["the red disc", "a disc"]),
    "white space": (" the\n red\u00a0disc ", ["the red disc"]),
    "an empty text among others": (["", "a disc", None, " "], ["a disc"]),
    "an empty text": ("", NONE),
    "no text": (None, NONE),
    "an empty list": ([], NONE),
    "invisible characters": ("\ufeffthe\u200b red di\u00adsc\x00", ["the red disc"]),
    "letters that are joined": ("\u0645\u06cc\u200c\u062e", ["\u0645\u06cc\u200c\u062e"]),
    "nothing to see": (" \u200b\ufeff", NONE),
    "a number": (7, NO_TEXT),
    "a missing value of pandas": (float("nan"), NO_TEXT),
    "bytes": (b"a disc", NO_TEXT),
    "lists of lists": ([["a disc"], ["a square"]], NO_TEXT),
    "a record": ({"text": "a disc"}, Refused("or a field such as 'caption.text'")),
    "a set, which has no order": ({"a disc", "the red disc"}, NO_TEXT),
    "token ids": (torch.tensor([0, 3, 1]), NO_TEXT),
    "a JSON list in a text": ('["a disc", "the disc"]', Refused("Row 7 has a list that is written as a text")),
    "a Python list in a text": ("['a disc', 'the disc']", Refused("Make a list of texts of it")),
    "brackets in a text": ("[a disc] on white", ["[a disc] on white"]),
    "half a character": ("a \ud83d disc", Refused("Row 7 has half a character")),
}


def captions(processor, columns="caption", **features):
    return Captions(columns, ["image", "caption", "tags", "json"], features, processor)


@outcomes(CELLS)
def test_cells(given, outcome, processor):
    check(lambda: captions(processor).texts({"caption": given}, 7), outcome)


COLUMNS = {
    "a name": ("caption", ["caption"]),
    "two names": (["caption", "tags"], ["caption", "tags"]),
    "two names in one text": ("caption, tags", ["caption", "tags"]),
    "a name twice": (["caption", "caption"], ["caption"]),
    "the usual names": ("auto", ["caption"]),
    "a field": ("json.text", ["json.text"]),
    "a misspelt name": ("captions", Refused("no caption column 'captions'; it has ['image', 'caption', 'tags'")),
    "a comma too many": ("caption,", Refused("no caption column ''")),
    "an empty text": ("", Refused("which is no name of a column")),
    "none": (None, Refused("which is no name of a column. Pass a name, a list of names, or 'auto'")),
    "an empty list": ([], Refused("which is no name of a column")),
    "none in a list": (["caption", None], Refused("which is no name of a column")),
    "a number": (1, Refused("which is no name of a column")),
    "a set": ({"caption", "tags"}, Refused("which is no name of a column")),
}


@outcomes(COLUMNS)
def test_columns(given, outcome, processor):
    check(lambda: list(captions(processor, given).paths), outcome)


@pytest.mark.parametrize(
    "kind",
    [
        datasets.Value("int64"),
        datasets.Image(),
        datasets.List(datasets.Value("int64")),
        datasets.List(datasets.List(datasets.Value("string"))),
        {"text": datasets.Value("string")},
    ],
)
def test_columns_of_another_type_are_refused_before_a_row_is_read(kind, processor):
    with pytest.raises(ValueError, match="You passed caption_column='caption', but that column is .*no text"):
        captions(processor, caption=kind)


def test_a_long_caption_is_cut_to_what_the_tokenizer_takes(processor):
    ids = captions(processor).tokens({"caption": "the red disc " * 50}, 7)["input_ids"]
    assert ids.shape == (1, processor.tokenizer.model_max_length)
