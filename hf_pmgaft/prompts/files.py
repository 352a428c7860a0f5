"""Files with one name per line, as people save them."""

from __future__ import annotations

import codecs
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from .characters import check_visible
from .names import names_in_order

# By the mark at the beginning of a file, the longer ones first.
ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NUMBERED = re.compile(r"\W?(\d+)\s*[\s.):,;|=]\s*(\S.*)")
# Categories of control characters, and of separators of lines and paragraphs.
LINE_BREAKS = ("Cc", "Zl", "Zp")
QUOTED = re.compile(r"(['\"]).*\1,?")


def read_names(file: str | os.PathLike) -> list[str]:
    r"""Reads a file with one name per line, as [`read_lines`] does, or with a JSON list of names or `id2label`.

    In JSON a class may have a list of synonyms, which become one text with commas.

    Returns:
        `list[str]`: The names in their order, of an `id2label` in that of its numbers.

    Raises:
        ValueError: for what `read_lines` refuses, and for lines that are numbered or in quotes.

    Example:
        >>> from pathlib import Path
        >>> size = Path("names.json").write_text('["tree frog", "toad"]')
        >>> read_names("names.json")
        ['tree frog', 'toad']
    """
    path = _existing(file)
    text = _decoded(path)
    if text.lstrip()[:1] in ("[", "{"):
        return _names_in_json(path, text)
    lines = _lines(path, text)
    _check_are_names(path, lines)
    return lines


def read_lines(file: str | os.PathLike) -> list[str]:
    r"""Reads a text file line by line, in UTF-8 or what its byte order mark says.

    Lines end by `\n` or `\r\n`. Space around a line and empty lines at the end are dropped.

    Raises:
        ValueError: for a file that is not there, another encoding, an empty line between others, a table with tabs,
            and characters that nobody sees. The message names the file.

    Example:
        >>> from pathlib import Path
        >>> size = Path("names.txt").write_text("\ufefftree frog\r\ntoad\r\n\r\n", encoding="utf-8", newline="")
        >>> read_lines("names.txt")
        ['tree frog', 'toad']
    """
    path = _existing(file)
    return _lines(path, _decoded(path))


def _existing(file: str | os.PathLike) -> Path:
    """The path of a file that is there."""
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"You passed the file of names {str(file)!r}, but there is no such file. Correct its place.")
    return path


def _decoded(path: Path) -> str:
    """The text of a file."""
    data = path.read_bytes()
    encoding = next((name for mark, name in ENCODINGS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is no text in {encoding.removesuffix('-sig').upper()}: line {line} has the byte "
            f"0x{data[error.start]:02X}. Save the file as UTF-8."
        ) from error


def _names_in_json(path: Path, text: str) -> list[str]:
    """The names of a JSON list or `id2label`."""
    try:
        names = names_in_order(json.loads(text))
        names = [", ".join(name) if _is_list_of_texts(name) else name for name in names]
    except ValueError as error:
        raise ValueError(
            f"{path} begins as JSON does, but is no JSON list of names ({error}). Write one name per line."
        ) from error
    no_texts = [name for name in names if not isinstance(name, str)]
    if no_texts:
        raise ValueError(f"{path} lists {no_texts[0]!r:.80}, which is no text. Write one name per line.")
    for name in names:
        check_visible(name, f"In {path} the name")
    return names


def _is_list_of_texts(value: Any) -> bool:
    """Whether a JSON value is the synonyms of a class."""
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _lines(path: Path, text: str) -> list[str]:
    """The lines of a text, each with something in it; `ValueError` for what is no list."""
    lines = [line.strip() for line in re.split(r"\r?\n", text)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{path} is empty. Write one name per line.")

    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(
                f"Line {number} of {path} is empty, though names follow: a name is missing, or the line is too much. "
                "Write one name per line."
            )
        if line.isprintable():
            continue
        if "\t" in line:
            raise ValueError(f"Line {number} of {path} has a tab: it is a table. Write one name per line and no more.")
        breaks = [character for character in line if unicodedata.category(character) in LINE_BREAKS]
        if any(character.isspace() for character in breaks):
            raise ValueError(
                f"Line {number} of {path} holds U+{ord(breaks[0]):04X}, which may or may not end a line. End each "
                "line as the others."
            )
        check_visible(line, f"Line {number} of {path}")
    return lines


def _check_are_names(path: Path, lines: list[str]) -> None:
    """Raises `ValueError` for lines that say more than names."""
    # "1 disc" and "2 discs" are names.
    numbered = [match.groups() for line in lines if (match := NUMBERED.fullmatch(line))]
    numbers = [int(number) for number, _ in numbered]
    is_counted = numbers in (list(range(len(lines))), list(range(1, len(lines) + 1)))
    if is_counted and len({name.rstrip("s") for _, name in numbered}) == len(lines) > 1:
        raise ValueError(f"{path} numbers its lines, as in {lines[0]!r:.40}. Write the names without numbers.")
    if all(QUOTED.fullmatch(line) for line in lines):
        raise ValueError(f"{path} has its names in quotes, as in {lines[0]!r:.40}. Write the names alone.")
