"""Files of class names, as `--class_names`, `--guidance_names` and suites read them."""

import pytest
from support.borders import Refused, check, outcomes

from hf_pmgaft.prompts import read_lines, read_names
from hf_pmgaft.suites import read_suite

CAT_DOG = ["cat", "dog"]

CASES = {
    "lines": (b"cat\ndog\n", CAT_DOG),
    "no end of the last line": (b"cat\ndog", CAT_DOG),
    "ends of Windows": (b"cat\r\ndog\r\n", CAT_DOG),
    "a byte order mark": (b"\xef\xbb\xbfcat\ndog\n", CAT_DOG),
    "UTF-16 with its mark": ("cat\ndog\n".encode("utf-16"), CAT_DOG),
    "UTF-16, the other way round": (b"\xfe\xff" + "cat\r\ndog".encode("utf-16-be"), CAT_DOG),
    "UTF-32 with its mark": ("cat\ndog\n".encode("utf-32"), CAT_DOG),
    "UTF-16 without a mark": ("cat\ndog\n".encode("utf-16-le"), Refused("names.txt, 'c\\x00a\\x00t\\x00', holds")),
    "Latin-1": ("cat\ncafé\n".encode("latin-1"), Refused("names.txt is no text in UTF-8: line 2 has the byte 0xE9")),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", Refused("names.txt is no text in UTF-8: line 1")),
    "space around names": (b"  cat \ndog\t\n", CAT_DOG),
    "empty lines at the end": (b"cat\ndog\n\n \n", CAT_DOG),
    "an empty line between": (b"cat\n\ndog\n", Refused("Line 2 of")),
    "an empty first line": (b"\ncat\ndog\n", Refused("Line 1 of")),
    "nothing": (b"", Refused("names.txt is empty")),
    "nothing but empty lines": (b"\n\r\n \n", Refused("names.txt is empty")),
    "a form feed": (b"cat\x0cdog\nbird\n", Refused("holds U+000C, which may or may not end a line")),
    "a next-line character": ("cat\x85dog\nbird\n".encode(), Refused("holds U+0085")),
    "a line separator": ("cat\u2028dog\nbird\n".encode(), Refused("holds U+2028")),
    "ends of an old Mac": (b"cat\rdog\rbird\r", Refused("holds U+000D")),
    "a zero-width space": ("cat\ndo\u200bg\n".encode(), Refused("Line 2 of")),
    "a mark in the middle, of files put together": ("cat\n\ufeffdog\n".encode(), Refused("invisible U+FEFF")),
    "a JSON list": (b'\n["cat",\n "dog"]', CAT_DOG),
    "a JSON id2label": (b'{"1": "dog", "0": "cat"}', CAT_DOG),
    "a JSON label2id": (b'{"cat": 0, "dog": 1}', Refused("names.txt begins as JSON does, but is no JSON list")),
    "a JSON list of numbers": (b"[0, 1]", Refused("names.txt lists 0, which is no text")),
    "a damaged JSON list": (b'["cat", "dog",]', Refused("names.txt begins as JSON does, but is no JSON list")),
    "ids and words": (b"n02121620\tcat\nn02084071\tdog\n", Refused("names.txt has a tab: it is a table")),
    "numbered lines": (b"0 cat\n1 dog\n", Refused("numbers its lines, as in '0 cat'")),
    "numbered lines of CSV": (b"1,cat\n2,dog\n", Refused("numbers its lines, as in '1,cat'")),
    "counts as names": (b"1 disc\n2 discs\n3 discs\n", ["1 disc", "2 discs", "3 discs"]),
    "a name with a number": (b"1st place medal\n2nd place medal\n", ["1st place medal", "2nd place medal"]),
    "code": (b"'cat',\n'dog',\n", Refused("has its names in quotes, as in \"'cat',\"")),
    "a non-breaking space": ("tree\u00a0frog\ntoad\n".encode(), ["tree\u00a0frog", "toad"]),
}


@outcomes(CASES)
def test_files_of_names(given, outcome, tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes(given)
    check(lambda: read_names(file), outcome)


@pytest.mark.parametrize("read", [read_names, read_lines])
def test_files_that_are_not_there_are_named(read, tmp_path):
    for file in ("no.txt", tmp_path):
        with pytest.raises(ValueError, match="there is no such file. Correct its place"):
            read(file)


def test_lists_of_a_suite_are_read_alike(tmp_path):
    (tmp_path / "own.yaml").write_text("own: {path: own, class_names: names.txt, labels: labels.txt}")
    (tmp_path / "names.txt").write_bytes("cat\ndog\n".encode("utf-16"))
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf0; n02121620\n1; n02084071\n\n")
    entry = read_suite(tmp_path / "own.yaml")["own"]
    assert entry["class_names"] == CAT_DOG and entry["labels"] == ["0; n02121620", "1; n02084071"]

    (tmp_path / "labels.txt").write_text("cat\n\ndog\n")
    with pytest.raises(ValueError, match="Line 2 of .*labels.txt is empty, though names follow"):
        read_suite(tmp_path / "own.yaml")
