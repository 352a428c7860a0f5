"""Benchmarks as data: a YAML file states where each set lies, its class names in label order, templates and sizes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import yaml

from ..data.columns import LABEL_COLUMNS, find_column
from ..data.evaluation_sets import ZeroShotDataset
from ..data.sources import load_images
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_class_names, prompt_name

FOLDER = Path(__file__).parent
NUM_STORED = 1000
FIELDS = {
    "path": "Hub id, a path relative to the suite's file, or whatever else `load_images` reads",
    "config": "name of the set's configuration, or a list of several, one after the other",
    "data_files": "file or pattern of those that make up the set; all if absent",
    "revision": "branch, tag or commit on the Hub",
    "split": "name of the split, or several joined by +; test if absent",
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
    "resize": "shortest edge in pixels before the processor's crop",
    "num_images": "size of the split without dropped classes; a set of another size is refused",
    "in_domain": "whether it is the set that models were trained on",
}

logger = logging.getLogger(__name__)


def read_suite(suite: str | PathLike) -> dict[str, dict[str, Any]]:
    """Reads a benchmark, with its class-name files in place of their names.

    Args:
        suite (`str` or path): A shipped one (`paper16`, `natural_shift`) or a YAML file of one's own: a name per set,
            and under it the fields of `FIELDS`. Files and folders that it names lie relative to it; a
            `sample_ids.json` beside it holds the rows of each set in the order in which a limit takes them; without
            it they are drawn as the shipped ones were.

    Returns:
        `dict[str, dict]`: Per set its fields. `class_names` holds the dropped classes too, as labels count them.

    Raises:
        `ValueError`: For an unknown suite or field, a set without `path` or `class_names`, and lists that do not fit.
    """
    path = Path(suite)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{suite}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise ValueError(f"There is no suite {str(suite)!r}. Pass one of: {shipped}; or a YAML file of your own.")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"{path} is no mapping of sets to their fields. Write a name per set and fields under it.")
    entries = {str(name): _read_entry(str(name), entry, path) for name, entry in entries.items()}
    stored = path.parent / "sample_ids.json"
    if stored.is_file():
        for name, sample_ids in json.loads(stored.read_text(encoding="utf-8")).items():
            entries.get(name, {})["sample_ids"] = sample_ids
    return entries


def load_suite(
    suite: str | PathLike,
    processor: Any,
    *,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    data_root: str | PathLike | None = None,
) -> list[ZeroShotDataset]:
    """Loads the sets of a benchmark for evaluation.

    The order of labels is compared with the stored list wherever the set has a `ClassLabel`. Numbers and booleans
    carry no names: of them only the range can be checked.

    Args:
        suite (`str` or path): What `read_suite` reads.
        processor (`CLIPProcessor`): Resizes and crops.
        names (`list[str]`, *optional*): Some sets of the suite; all if not given.
        limit (`int`, *optional*): Evaluate so many images per set, at most 1000: the first of the stored order.
        data_root (`str` or path, *optional*): Folder with a sub-folder per set, named as in the suite (a
            `save_to_disk` folder, parquet files or a copy from the Hub), read in place of the Hub. A set of another
            size than `num_images` is then refused only with a limit, whose sample ids would be other images.

    Raises:
        `ValueError`: For unknown names, a wrong order of labels, labels out of range, and a set of the wrong size.
    """
    entries = read_suite(suite)
    names = list(entries) if names is None else list(names)
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise ValueError(f"The suite {str(suite)!r} has no sets {unknown}. It has: {', '.join(entries)}.")
    if limit is not None and not 1 <= limit <= NUM_STORED:
        raise ValueError(
            f"You passed limit={limit}, but the stored order names {NUM_STORED} images per set. Pass 1 to "
            f"{NUM_STORED}, or no limit for all images."
        )
    return [_load(name, entries[name], processor, limit, data_root) for name in names]


def draw_sample_ids(name: str, num_images: int, count: int = NUM_STORED) -> list[int]:
    """`count` rows in a random order that no library's generator decides: by the SHA-256 of `name/row`.

    `sample_ids.json` holds its results, `{name: draw_sample_ids(name, num_images)}`.
    """
    return sorted(range(num_images), key=lambda row: hashlib.sha256(f"{name}/{row}".encode()).digest())[:count]


def _read_entry(name: str, entry: dict[str, Any], path: Path) -> dict[str, Any]:
    unknown = sorted(set(entry) - set(FIELDS))
    if unknown:
        raise ValueError(f"Set {name!r} of {path} has unknown fields {unknown}. Known are: {', '.join(FIELDS)}.")
    missing = [field for field in ("path", "class_names") if not entry.get(field)]
    if missing:
        raise ValueError(
            f"Set {name!r} of {path} has no {' and no '.join(missing)}. State them: {FIELDS[missing[0]]}."
        )
    entry = {**entry, "class_names": _read_list(name, "class_names", entry, path)}
    dropped = [dropped for dropped in entry.get("drop_classes", []) if dropped not in entry["class_names"]]
    if dropped:
        raise ValueError(f"Set {name!r} of {path} drops {dropped}, which are no class names of it. Correct them.")
    check_class_names(_kept(entry))
    if "labels" in entry:
        entry["labels"] = _read_list(name, "labels", entry, path)
        if len(entry["labels"]) != len(entry["class_names"]):
            raise ValueError(
                f"Set {name!r} of {path} has {len(entry['labels'])} labels but {len(entry['class_names'])} class "
                "names. Write one class name per label, in the same order."
            )
    if entry.get("by_name"):
        _label_index(name, entry)
    if (path.parent / entry["path"]).exists():
        entry["path"] = str(path.parent / entry["path"])
    return entry


def _read_list(name: str, field: str, entry: dict[str, Any], path: Path) -> list[str]:
    value = entry[field]
    if isinstance(value, str):
        file = path.parent / value
        if not file.is_file():
            raise ValueError(f"Set {name!r} of {path} names the {field} file {file}, which is not there. Correct it.")
        value = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    # YAML reads a bare `no` or `747` as something else than text.
    wrong = [item for item in value if not isinstance(item, str)]
    if wrong:
        raise ValueError(f"Set {name!r} of {path} has {field} that are no text: {wrong}. Put them in quotes.")
    return list(value)


def _kept(entry: dict[str, Any]) -> list[str]:
    return [name for name in entry["class_names"] if name not in entry.get("drop_classes", [])]


def _load(name: str, entry: dict[str, Any], processor: Any, limit: int | None, data_root: Any) -> ZeroShotDataset:
    parts = [_numbered(name, entry, images) for images in _open(name, entry, data_root)]
    images = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    label_column = _label_column(entry, images)
    _check_size(name, entry, len(images), strict=limit is not None or data_root is None)
    return ZeroShotDataset(
        images,
        processor,
        class_names=_kept(entry),
        prompt_templates=entry.get("prompt_template", DEFAULT_PROMPT_TEMPLATES),
        name=name,
        image_column=entry.get("image_column"),
        label_column=label_column,
        border=entry.get("border", 0),
        native_size=entry.get("native_size", False),
        resize=entry.get("resize"),
        sample_ids=None if limit is None else _limited(name, entry, len(images), limit),
    )


def _limited(name: str, entry: dict[str, Any], size: int, limit: int) -> list[int]:
    rows = entry.get("sample_ids") or draw_sample_ids(name, size)
    if len(rows) < min(limit, size):
        raise ValueError(
            f"You passed limit={limit}, but {len(rows)} sample ids of {name!r} are stored. Pass at most {len(rows)}, "
            "or store more in `sample_ids.json`."
        )
    return sorted(rows[:limit])


def _open(name: str, entry: dict[str, Any], data_root: Any) -> list[datasets.Dataset]:
    """The set, as one data set for each of its configurations."""
    path, files = entry["path"], entry.get("data_files")
    options = {"revision": entry.get("revision"), "data_files": files}
    if data_root is not None:
        folder = Path(data_root) / name
        if not folder.is_dir():
            # Without this a missing folder would be looked up on the Hub.
            raise ValueError(
                f"You passed data_root={str(data_root)!r}, which has no folder {name!r}. Save the set there."
            )
        # There may be folders of images in place of the Hub's archives.
        path, options = str(folder), {"data_files": files} if files and any(folder.glob(files)) else {}
    configs, split = entry.get("config"), entry.get("split", "test")
    configs = configs if isinstance(configs, list) else [configs]
    return [load_images(path, config, split, **options) for config in configs]


def _label_column(entry: dict[str, Any], images: datasets.Dataset) -> str:
    given = entry.get("label_column")
    if entry.get("by_name") and given not in images.column_names:
        given = None  # an ImageFolder of one's own has a `label` in place of the column that the Hub's copy has
    return find_column(images, given, LABEL_COLUMNS, "label")


def _numbered(name: str, entry: dict[str, Any], images: datasets.Dataset) -> datasets.Dataset:
    """The images of the classes that are kept, labelled by numbers from 0, as the stored lists count them."""
    column = _label_column(entry, images)
    feature = images.features[column]
    texts = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
    if entry.get("by_name") and (texts or isinstance(feature, datasets.ClassLabel)):
        return _look_up_labels(name, entry, images, column)
    _check_label_order(name, entry, feature)
    return _number_labels(name, entry, images, column)


def _label_index(name: str, entry: dict[str, Any]) -> dict[str, str]:
    """What a set may call its labels -> class name; a line of `labels` holds several such names, joined by `; `."""
    index: dict[str, str] = {}
    for class_name, line in zip(entry["class_names"], entry.get("labels", entry["class_names"]), strict=True):
        for label in line.split("; "):
            if index.setdefault(prompt_name(label), class_name) != class_name:
                raise ValueError(
                    f"Set {name!r} looks labels up by name, but {label!r} stands for both "
                    f"{index[prompt_name(label)]!r} and {class_name!r}. Let each label stand in one line of `labels`."
                )
    return index


def _look_up_labels(name: str, entry: dict[str, Any], images: datasets.Dataset, column: str) -> datasets.Dataset:
    """As `_number_labels`, by the names of the labels; images of other names are left out."""
    index, numbers = _label_index(name, entry), {class_name: label for label, class_name in enumerate(_kept(entry))}
    values = list(images.with_format(None).select_columns([column])[column])
    feature = images.features[column]
    if isinstance(feature, datasets.ClassLabel):
        texts, values = feature.names, [feature.names[value] for value in values]
    else:  # a path, as the key of a webdataset, names its class by the folder
        values = [value.split("/")[-2] if "/" in value else value for value in values]
        texts = sorted(set(values))
    found = {text: index.get(prompt_name(text)) for text in texts}
    labels = [numbers.get(found[value]) for value in values]
    if set(labels) <= {None}:
        raise ValueError(
            f"{name!r} calls its labels {texts[:3]}, and none of its images is of a stored class: {list(index)[:3]}. "
            "Load the set that the suite names, or state `labels` as it calls them in a suite of your own."
        )
    images = images.remove_columns(column).add_column(column, labels)
    return images.select([row for row, label in enumerate(labels) if label is not None])


def _check_label_order(name: str, entry: dict[str, Any], feature: Any) -> None:
    if not isinstance(feature, datasets.ClassLabel):
        return
    stored = entry.get("labels", entry["class_names"])
    for label, (found, wanted) in enumerate(zip_longest(feature.names, stored)):
        if found is None or wanted is None or prompt_name(found) != prompt_name(wanted):
            raise ValueError(
                f"Label {label} of {name!r} is {found!r}, but {wanted!r} in the stored list, so predictions would be "
                "compared with the wrong names. Load the set that the suite names, or state `labels` in its order in "
                "a suite of your own."
            )


def _number_labels(name: str, entry: dict[str, Any], images: datasets.Dataset, column: str) -> datasets.Dataset:
    """Labels counted from 0 over the classes that are kept, without the images of those that are dropped."""
    first, kept = entry.get("first_label", 0), _kept(entry)
    if first == 0 and len(kept) == len(entry["class_names"]):
        return images
    index = {class_name: label for label, class_name in enumerate(kept)}
    numbers = {first + i: index.get(class_name) for i, class_name in enumerate(entry["class_names"])}
    labels = list(images.with_format(None).select_columns([column])[column])
    outside = sorted(set(labels) - set(numbers), key=str)
    if outside:
        raise ValueError(
            f"{name!r} has the labels {outside[:5]}, outside {min(numbers)} to {max(numbers)} for its {len(numbers)} "
            "class names. Correct `first_label` or `class_names` in a suite of your own."
        )
    images = images.remove_columns(column).add_column(column, [numbers[label] for label in labels])
    return images.select([row for row, label in enumerate(labels) if numbers[label] is not None])


def _check_size(name: str, entry: dict[str, Any], size: int, strict: bool) -> None:
    expected = entry.get("num_images", size)
    if size == expected:
        return
    if strict:
        raise ValueError(
            f"{name!r} has {size} images, but {expected} are stated: this is another partition or a part of the set, "
            "with which neither figures nor sample ids agree. Load the stated split, or state `num_images` in a suite "
            "of your own."
        )
    logger.warning("%r has %d images in place of the stated %d; all of them are evaluated.", name, size, expected)
