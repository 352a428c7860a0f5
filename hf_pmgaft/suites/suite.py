"""A suite as data: a YAML file states where each set lies, its class names in label order, templates and sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ..prompts import check_class_names, check_synonyms, read_lines, read_names
from .fields import read_sample_ids, read_yaml
from .masked import is_masked
from .numbering import classes_by_label, kept_class_names

FOLDER = Path(__file__).parent
NUM_STORED = 1000


def read_suite(suite: str | PathLike) -> dict[str, dict[str, Any]]:
    """Reads what a suite says of its sets, with the lists of its class-name files in place of their names.

    Args:
        suite (`str` or path): A shipped one (see [`shipped_suites`]) or a YAML file of one's own: a name per set,
            and under it the fields of `FIELDS`. Files and folders that it names lie relative to it; a
            `sample_ids.json` beside it holds the rows of each set in the order in which a limit takes them; without
            it they are drawn as the shipped ones were.

    Returns:
        `dict[str, dict]`: Per set its fields. `class_names` holds the dropped classes too, as labels count them.

    Raises:
        ValueError: for an unknown suite or field, a set without `path` or `class_names`, and lists that do not fit.

    Example:
        >>> entry = read_suite("paper16")["dtd"]
        >>> entry["path"], len(entry["class_names"]), entry["num_images"]
        ('tanganke/dtd', 47, 1880)
    """
    path = _find_file(suite)
    entries = {name: _read_entry(name, entry, path) for name, entry in read_yaml(path).items()}

    stored = path.parent / "sample_ids.json"
    if stored.is_file():
        for name, sample_ids in read_sample_ids(stored).items():
            if name in entries:
                entries[name]["sample_ids"] = sample_ids
    return entries


def shipped_suites() -> list[str]:
    """Lists the suites that come with the package.

    Example:
        >>> shipped_suites()
        ['embedded', 'fare13', 'natural_shift', 'paper16', 'segmentation']
    """
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def draw_sample_ids(name: str, num_images: int, count: int = NUM_STORED) -> list[int]:
    """Draws `count` rows in a random order that no library's generator decides: by the SHA-256 of `name/row`.

    `sample_ids.json` holds its results, `{name: draw_sample_ids(name, num_images)}`.

    Example:
        >>> draw_sample_ids("dtd", num_images=1880, count=3) == read_suite("paper16")["dtd"]["sample_ids"][:3]
        True
    """
    return sorted(range(num_images), key=lambda row: hashlib.sha256(f"{name}/{row}".encode()).digest())[:count]


def _find_file(suite: str | PathLike) -> Path:
    """The suite's YAML file, or `ValueError` that lists the shipped suites."""
    path = Path(suite)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{suite}.yaml"
    if not path.is_file():
        shipped = ", ".join(shipped_suites())
        raise ValueError(f"There is no suite {str(suite)!r}. Pass one of: {shipped}; or a YAML file of your own.")
    return path


def _read_entry(name: str, entry: dict[str, Any], path: Path) -> dict[str, Any]:
    """The checked fields of one set, with lists read from their files."""
    # Classes
    entry = _like_another(name, entry, path) if "same_as" in entry else dict(entry)
    entry["class_names"] = _read_list(name, "class_names", entry, path)
    unlisted = [dropped for dropped in entry.get("drop_classes", []) if dropped not in entry["class_names"]]
    if unlisted:
        raise ValueError(f"Set {name!r} of {path} drops {unlisted}, which are no class names of it. Correct them.")
    if is_masked(entry):
        check_synonyms(entry["class_names"], "background_threshold" in entry)
    else:
        check_class_names(kept_class_names(entry))

    # Labels
    if "labels" in entry:
        entry["labels"] = _read_list(name, "labels", entry, path)
        if len(entry["labels"]) != len(entry["class_names"]):
            raise ValueError(
                f"Set {name!r} of {path} has {len(entry['labels'])} labels but {len(entry['class_names'])} class "
                "names. Write one class name per label, in the same order."
            )
    if entry.get("by_name"):
        _check_labels_are_distinct(name, entry)

    # Place
    if (path.parent / entry["path"]).exists():
        entry["path"] = str(path.parent / entry["path"])
    return entry


def _like_another(name: str, entry: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of the set of a shipped suite that an entry names, with those of the entry over them."""
    suite, _, known = entry["same_as"].partition(":")
    sets = read_suite(suite) if suite in shipped_suites() and suite != path.stem else {}
    if known not in sets:
        raise ValueError(
            f"Set {name!r} of {path} is to be the same as {entry['same_as']!r}, which is no set of a shipped suite. "
            f"Write one as SUITE:SET, with a suite of {', '.join(shipped_suites())}."
        )
    return {**sets[known], **entry}


def _read_list(name: str, field: str, entry: Mapping[str, Any], path: Path) -> list[str]:
    """A list of texts, from the file that the field names if it names one."""
    texts = entry[field]
    if isinstance(texts, str):
        file = path.parent / texts
        if not file.is_file():
            raise ValueError(f"Set {name!r} of {path} names the {field} file {file}, which is not there. Correct it.")
        texts = read_names(file) if field == "class_names" else read_lines(file)

    # YAML reads a bare `no` or `747` as something else than text.
    no_texts = [item for item in texts if not isinstance(item, str)]
    if no_texts:
        raise ValueError(f"Set {name!r} of {path} has {field} that are no text: {no_texts}. Put them in quotes.")
    return list(texts)


def _check_labels_are_distinct(name: str, entry: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a label that stands for two classes, which only looking all of them up shows."""
    classes_by_label(name, entry)
