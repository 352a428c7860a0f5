"""What a suite may state of a set, and whether a file states it so that it can be meant."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..prompts import check_prompt_templates

NOT_ON_HUB = "not on the Hub"  # the path of a set of which no copy there is known
EMBEDDED = "embedded"  # the path of a set that comes with the package

FIELDS = {
    "path": "Hub id, a path relative to the suite's file, or whatever else `load_images` reads",
    "config": "name of the set's configuration, or a list of several, one after the other",
    "data_files": "file or pattern of those that make up the set; all if absent",
    "revision": "branch, tag or commit on the Hub",
    "split": "name of the split, or several joined by +; test if absent",
    "train_split": "the split to train on; there is none if absent",
    "image_column": "the usual names if absent",
    "label_column": "the usual names if absent",
    "class_names": "list in label order, or a text file with one name per line",
    "labels": "list or file: what the ClassLabel of the set must list, in order; the class names if absent",
    "by_name": "whether a ClassLabel in any order, or a text column, is looked up in `labels`; see README.md",
    "first_label": "number of the first class; 0 if absent",
    "drop_classes": "class names whose images are left out",
    "prompt_template": "one or a list, each with one {}",
    "border": "pixels cut off at each edge before anything else",
    "native_size": "whether images are attacked at their own size",
    "resize": "shortest edge in pixels before the processor's crop; or of a crop, as 256/224, in proportion to it",
    "num_images": "size of the split without dropped classes, or [least, most]; a set of another size is refused",
    "accept_any_class_names": "whether class names that a text tower cannot know, such as ids, are taken",
    "in_domain": "whether it is the set that models were trained on",
    "same_as": "SUITE:SET of a shipped suite, all of whose fields it has but for those that are stated here",
    # Of sets with masks, whose class names may each be several, separated by commas
    "mask_column": "column of masks, which makes it a set of them",
    "ignore_index": "value, or list of values, that stands for no class; 255 if absent",
    "reduce_zero_label": "whether 0 stands for no class and the first class is 1",
    "mask_values": "for each class the value, or a list of values, that stands for it; 0, 1, 2, ... if absent",
    "expected_values": "values of which the first masks hold some, unless they are numbered otherwise",
    "background_threshold": "probability below which a pixel is of the first class; a class as others if absent",
    "short_edge": "shortest edge to which images and masks are resized",
}


def read_yaml(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the sets of a suite's file, with checked fields.

    Raises:
        ValueError: for what is no YAML or no mapping of sets to fields, a name that stands twice, an unknown field,
            and a value that a field cannot have.
    """
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise ValueError(f"{path} is no YAML file ({where}). Write a name per set and fields under it.") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"{path} is no mapping of sets to their fields. Write a name per set and fields under it.")

    entries = {str(name): dict(entry) for name, entry in entries.items()}
    for name, entry in entries.items():
        _check_entry(name, entry, path)
    return entries


def read_sample_ids(path: Path) -> dict[str, list[int]]:
    """Reads the rows that a limit takes, in their order, by set.

    Raises:
        ValueError: for a file that holds no lists of distinct row numbers.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}). Write {{set: [row, row, ...]}}, or remove it.") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{path} holds a {type(stored).__name__}. Write {{set: [row, row, ...]}}, or remove it.")
    for name, rows in stored.items():
        if not isinstance(rows, list) or not all(_is_count(row) for row in rows) or len(set(rows)) < len(rows):
            raise ValueError(
                f"{path} has for {name!r} no list of distinct row numbers from 0. Correct it, or leave the set out to "
                "have its rows drawn."
            )
    return stored


def size_range(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Gives the least and the most images that a set may have, if that is stated.

    Example:
        >>> size_range({"num_images": 1880}), size_range({"num_images": [8371, 8401]}), size_range({})
        ((1880, 1880), (8371, 8401), None)
    """
    stated = entry.get("num_images")
    if stated is None:
        return None
    return (stated, stated) if isinstance(stated, int) else tuple(stated)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_size(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) == 2 and all(map(_is_count, value)) and 0 < value[0] <= value[1]
    return _is_count(value) and value > 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


# What the value of a field is, in words and by a check. Lists of names are checked where they are read.
_TEXT = ("a text", _is_text)
_TEXTS = ("a text or a list of texts", lambda value: _is_text(value) or _is_list_of_texts(value))
_NAMES = ("a file's name or a list of texts", lambda value: isinstance(value, (str, list)))
_NUMBER = ("a number from 0", _is_count)


def _is_resize(value: Any) -> bool:
    if isinstance(value, str):
        edges = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", value)
        return edges is not None and int(edges[1]) >= int(edges[2])
    return _is_count(value) and value > 0


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_values(value: Any) -> bool:
    return _is_value(value) or isinstance(value, list) and all(map(_is_value, value))


def _is_list_of_values(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_values, value))


def _is_probability(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1


_FLAG = ("true or false", _is_flag)
_VALUES = ("a number or a list of numbers", _is_values)
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "same_as": _TEXT,
    "path": _TEXT,
    "config": _TEXTS,
    "data_files": _TEXT,
    "revision": _TEXT,
    "split": _TEXT,
    "train_split": _TEXT,
    "image_column": _TEXT,
    "label_column": _TEXT,
    "class_names": _NAMES,
    "labels": _NAMES,
    "by_name": _FLAG,
    "first_label": _NUMBER,
    "drop_classes": ("a list of class names", _is_list_of_texts),
    "prompt_template": _TEXTS,
    "border": _NUMBER,
    "native_size": _FLAG,
    "resize": ("a number of pixels from 1, or a share of the crop such as 256/224", _is_resize),
    "num_images": ("a number from 1 or [least, most]", _is_size),
    "accept_any_class_names": _FLAG,
    "in_domain": _FLAG,
    "mask_column": _TEXT,
    "ignore_index": _VALUES,
    "reduce_zero_label": _FLAG,
    "mask_values": ("a list with a number, or a list of numbers, for each class", _is_list_of_values),
    "expected_values": ("a list of numbers", _is_list_of_values),
    "background_threshold": ("a number between 0 and 1", _is_probability),
    "short_edge": ("a number of pixels from 1", lambda value: _is_count(value) and value > 0),
}


def _check_entry(name: str, entry: Mapping[str, Any], path: Path) -> None:
    """Raises `ValueError` for fields that are unknown, missing, or of no use."""
    unknown = sorted(set(map(str, entry)) - set(FIELDS))
    if unknown:
        raise ValueError(f"Set {name!r} of {path} has unknown fields {unknown}. Known are: {', '.join(FIELDS)}.")
    missing = [field for field in ("path", "class_names") if not entry.get(field)]
    if missing and "same_as" not in entry:
        raise ValueError(
            f"Set {name!r} of {path} has no {' and no '.join(missing)}. State them: {FIELDS[missing[0]]}."
        )
    for field, value in entry.items():
        kind, is_one = _KINDS[field]
        if not is_one(value):
            raise ValueError(
                f"Set {name!r} of {path} has {field}: {value!r}, which is not {kind}. Correct it, or leave it out: "
                f"{FIELDS[field]}."
            )
    if "prompt_template" in entry:
        check_prompt_templates(entry["prompt_template"])


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key that stands twice, of which YAML keeps the last."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value]
    repeated = sorted({key for key in keys if keys.count(key) > 1}, key=str)
    if repeated:
        raise yaml.constructor.ConstructorError(
            None, None, f"{', '.join(map(str, repeated))} stands there twice", node.start_mark
        )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
