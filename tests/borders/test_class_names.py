"""Class names as objects: what is passed as `class_names`."""

import json

import numpy as np
import pytest
from support.borders import Refused, check, outcomes

import hf_pmgaft
from hf_pmgaft.prompts import check_class_names, parse_class_names

CAT_DOG = ["cat", "dog"]

CASES = {
    "a tuple": (("cat", "dog"), CAT_DOG),
    "a generator": ((name for name in CAT_DOG), CAT_DOG),
    "an array": (np.array(CAT_DOG), CAT_DOG),
    "lines with their ends, as readlines gives them": (["cat\n", "dog\n"], ["cat\n", "dog\n"]),
    "id2label of a configuration": ({1: "dog", 0: "cat"}, CAT_DOG),
    "id2label as JSON has it": ({"0": "cat", "1": "dog"}, CAT_DOG),
    "eleven names by their digits, in the order of numbers": (
        {str(number): "abcdefghijk"[number] for number in sorted(range(11), key=str)},
        list("abcdefghijk"),
    ),
    "label2id": ({"cat": 0, "dog": 1}, Refused("not the labels 0 to 1. Pass a list")),
    "id2label that begins with 1": ({1: "cat", 2: "dog"}, Refused("not the labels 0 to 1")),
    "id2label with a hole": ({0: "cat", 2: "dog"}, Refused("not the labels 0 to 1")),
    "id2label with numbers as names": ({0: 7, 1: 8}, Refused("are no texts")),
    "a set": (set(CAT_DOG), Refused("says nothing of the order of labels")),
    "the keys of a dict": (dict.fromkeys(CAT_DOG).keys(), Refused("says nothing of the order of labels")),
    "their number": (2, Refused("a int, which says nothing of the order")),
    "a text": ("cat", Refused("the text 'cat' as class names. Pass a list")),
    "bytes": (b"cat", Refused("the text b'cat' as class names. Pass a list")),
    "labels": ([0, 1], Refused("[0, 1] are no texts")),
    "a missing name": (["cat", None], Refused("[None] are no texts")),
    "lists of synonyms": ([["cat", "kitty"], ["dog"]], Refused("are no texts")),
    "one name": (["cat"], Refused("at least 2")),
    "none": ([], Refused("at least 2")),
    "white space": (["cat", " \t"], Refused("[1] are empty")),
    "signs that prompts leave out": (["cat", "_-_"], Refused("[1] are empty")),
    "a name twice but for its case": (["tree_frog", "Tree frog"], Refused("Classes 0 and 1 share the name")),
    "a byte order mark": (["\ufeffcat", "dog"], Refused("invisible U+FEFF (ZERO WIDTH NO-BREAK SPACE)")),
    "a zero-width space beside the name without": (["cat", "c\u200bat"], Refused("invisible U+200B")),
    "a control character": (["cat", "dog\x00"], Refused("invisible U+0000")),
    "half a character": (["cat", "dog\ud83d"], Refused("invisible U+D83D")),
    "joiners of a script and of emoji": (["می\u200cخواهم", "👩\u200d🚀"], ["می\u200cخواهم", "👩\u200d🚀"]),
    "a template": (["a photo of a {}", "an image of a {}"], Refused("is a template. Pass it as `prompt_templates`")),
    "accents, other scripts and signs": (["crème brûlée", "犬", "rock & roll"], ["crème brûlée", "犬", "rock & roll"]),
}


@outcomes(CASES)
def test_class_names(given, outcome):
    check(lambda: check_class_names(given), outcome)


def test_a_set_takes_names_by_their_labels(images, processor):
    id2label = json.loads('{"3": "w", "0": "x", "2": "y", "1": "z"}')
    data = hf_pmgaft.ZeroShotDataset(images, processor, id2label)
    assert data.class_names == ["x", "z", "y", "w"]
    with pytest.raises(ValueError, match="says nothing of the order"):
        hf_pmgaft.ZeroShotDataset(images, processor, {"w", "x", "y", "z"})


TYPED = {
    "commas": ("cat, dog,hot dog", ["cat", "dog", "hot dog"]),
    "lines": ("cat\ndog\nhot dog\n", ["cat", "dog", "hot dog"]),
    "lines as Windows ends them, some of them empty": ("cat\r\n\r\n dog \r\n", CAT_DOG),
    "commas in lines": ("Paris, France\nRome, Italy", ["Paris, France", "Rome, Italy"]),
    "commas that go on in the next line": ("cat, dog,\nhot dog", ["cat", "dog", "hot dog"]),
    "a comma too many": ("cat,, dog,", CAT_DOG),
    "nothing": (" \n ", Refused("You passed no class names")),
    "commas alone": (",,", Refused("You passed no class names")),
    "one name": ("cat", Refused("at least 2")),
    "one name twice": ("cat, dog, Cat", Refused("Classes 0 and 2 share the name 'Cat'")),
    "more than there may be": ("a, b, c, d", Refused("You passed 4 class names, where at most 3 are taken")),
}


@outcomes(TYPED)
def test_class_names_as_people_type_them(given, outcome):
    check(lambda: parse_class_names(given, most=3), outcome)
