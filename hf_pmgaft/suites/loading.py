"""The sets of a suite -> evaluation sets, checked against what the suite states of them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import datasets

from ..data.evaluation_sets import EvaluationImages, ZeroShotDataset
from ..data.parquet_rows import with_images
from ..data.places import SECONDS, Place, look_up
from ..data.rows import scaled_resize
from ..data.sources import load_for_some_rows, load_images
from ..embedded import emoji_folder
from ..prompts import DEFAULT_PROMPT_TEMPLATES
from .fields import EMBEDDED, NOT_ON_HUB, size_range
from .masked import is_masked, masked_entry
from .numbering import kept_class_names, label_column_of, number_labels
from .suite import NUM_STORED, draw_sample_ids, read_suite

logger = logging.getLogger(__name__)


def load_suite(
    suite: str | PathLike,
    processor: Any,
    *,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    data_root: str | PathLike | None = None,
) -> list[EvaluationImages]:
    """Loads the sets of a suite for evaluation.

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
        ValueError: for unknown names, a wrong order of labels, labels out of range, and a set of the wrong size.

    Example:
        >>> from pathlib import Path
        >>> dataset.save_to_disk("shapes")
        >>> text = "shapes: {path: shapes, class_names: [red disc, green disc, blue square, yellow square]}"
        >>> size = Path("own.yaml").write_text(text)
        >>> [(data.name, len(data)) for data in load_suite("own.yaml", processor)]
        [('shapes', 16)]
    """
    sets, missing = load_available_sets(suite, processor, names=names, limit=limit, data_root=data_root)
    if len(missing) == 1:
        raise ValueError(next(iter(missing.values())))
    if missing:
        listed = " ".join(f"{name}: {problem}" for name, problem in missing.items())
        raise ValueError(f"{len(missing)} sets of {str(suite)!r} cannot be loaded. {listed}")
    return sets


def load_available_sets(
    suite: str | PathLike,
    processor: Any,
    *,
    names: Sequence[str] | None = None,
    limit: int | None = None,
    data_root: str | PathLike | None = None,
) -> tuple[list[EvaluationImages], dict[str, str]]:
    """Loads the sets of a suite that can be loaded, and says why the others cannot.

    All are looked up on the Hub before the first is downloaded: gated sets, and those that are not there, are logged.

    Args:
        suite, processor, names, limit, data_root: See [`load_suite`].

    Returns:
        `tuple[list, dict]`: The sets, and by name the reason why another is missing.

    Raises:
        ValueError: for unknown names and a limit that the stored order does not have.

    Example:
        >>> from pathlib import Path
        >>> dataset.save_to_disk("shapes")
        >>> text = "{path: %s, class_names: [red disc, green disc, blue square, yellow square]}"
        >>> size = Path("own.yaml").write_text(f"shapes: {text % 'shapes'}")
        >>> sets, missing = load_available_sets("own.yaml", processor)
        >>> [data.name for data in sets], missing
        (['shapes'], {})
    """
    entries = read_suite(suite)
    names = list(entries) if names is None else list(dict.fromkeys(names))
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise ValueError(f"The suite {str(suite)!r} has no sets {unknown}. It has: {', '.join(entries)}.")
    check_limit(limit)

    # Before the first download
    places = {name: place_of(name, entries[name], data_root) for name in names}
    missing = {name: problem for name in names if (problem := _problem(name, entries[name], places[name]))}
    for problem in missing.values():
        logger.warning("Not available: %s", problem)
    if limit is None:
        _check_disk({name: (entries[name], place) for name, place in places.items() if name not in missing})

    sets = []
    for name in names:
        if name in missing:
            continue
        try:
            options = {"limit": limit, "data_root": data_root, "place": places[name]}
            sets.append(load_entry(name, entries[name], processor, **options))
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            missing[name] = str(error) if name in str(error) else f"{name!r}: {error}"
            logger.warning("Not available: %s", missing[name])
    return sets, missing


def place_of(
    name: str, entry: Mapping[str, Any], data_root: str | PathLike | None = None, seconds: float = SECONDS
) -> Place:
    """Where a suite's set is read from: its folder in `data_root`, or what the Hub says of its path in some seconds.

    Raises:
        ValueError: for a `data_root` without such a folder, which would else be looked up on the Hub.
    """
    if data_root is None and entry["path"] == EMBEDDED:
        return Place(str(emoji_folder() / "data"))
    if data_root is None and entry["path"] == NOT_ON_HUB:
        return Place(name, problem="no copy on the Hub is known. Save the set in a folder and pass data_root.")
    if data_root is None:
        return look_up(entry["path"], entry.get("revision"), seconds)
    folder = Path(data_root) / name
    if not folder.is_dir():
        raise ValueError(f"You passed data_root={str(data_root)!r}, which has no folder {name!r}. Save the set there.")
    return Place(str(folder))


def load_entry(
    name: str,
    entry: Mapping[str, Any],
    processor: Any,
    *,
    limit: int | None = None,
    sample_ids: Sequence[int] | None = None,
    data_root: str | PathLike | None = None,
    place: Place | None = None,
) -> EvaluationImages:
    """Loads one set by what a suite says of it.

    Args:
        name (`str`): How the set is called.
        entry (`dict`): Its fields, as `read_suite` gives them.
        sample_ids (`list[int]`, *optional*): The rows that are evaluated, in place of a limit.
        processor, limit, data_root: See [`load_suite`].
        place (`Place`, *optional*): Where it is, if that was looked up before.
    """
    place = place or place_of(name, entry, data_root)
    images = open_entry(name, entry, place, load_images if limit is None else load_for_some_rows)
    _check_size(name, entry, len(images), is_strict=limit is not None or data_root is None)

    if limit is not None:
        sample_ids = limited_sample_ids(name, len(images), limit, entry.get("sample_ids"))
        images = with_images(images, sample_ids)
    data = _as_data(name, entry, images, processor, sample_ids)
    least, most = size_range(entry) or (None, None)
    data.is_counted = least != most
    data.source = place.describe(entry.get("config"), entry.get("split", "test"))
    return data


def _as_data(
    name: str, entry: Mapping[str, Any], images: Any, processor: Any, sample_ids: Sequence[int] | None
) -> EvaluationImages:
    """The rows of a set as what its suite says that it is."""
    if is_masked(entry):
        return masked_entry(name, entry, images, processor, sample_ids)
    return ZeroShotDataset(
        images,
        processor,
        class_names=kept_class_names(entry),
        prompt_templates=entry.get("prompt_template", DEFAULT_PROMPT_TEMPLATES),
        name=name,
        image_column=entry.get("image_column"),
        label_column=label_column_of(entry, images),
        native_size=entry.get("native_size", False),
        resize=resize_of(entry, processor),
        sample_ids=sample_ids,
        border=entry.get("border", 0),
        accept_any_class_names=entry.get("accept_any_class_names", False),
    )


def resize_of(entry: Mapping[str, Any], processor: Any) -> int | None:
    """The shortest edge that a suite states, maybe in proportion to the processor's crop; `None` if it states none."""
    resize = entry.get("resize")
    if not isinstance(resize, str):
        return resize
    edge, crop = resize.split("/")
    return scaled_resize(int(edge), processor, int(crop))


def open_entry(name: str, entry: Mapping[str, Any], place: Place, load: Callable[..., Any] = load_images) -> Any:
    """Loads the rows of one set, with labels numbered over the class names that its suite keeps.

    Args:
        name (`str`): How the set is called.
        entry (`dict`): Its fields, as `read_suite` gives them.
        place (`Place`): Where it is.
        load (`Callable`): How rows are loaded: `load_images`, as a stream or not, or `load_for_some_rows`. Labels
            that are numbered anew cannot be streamed.

    Raises:
        ValueError: for a set that may not be read, labels in another order or outside the classes, and streams whose
            labels are numbered anew.
    """
    if place.problem:
        raise ValueError(f"{name!r}: {place.problem}")
    parts = _open(entry, place, load)
    if not is_masked(entry):
        parts = [number_labels(name, entry, images) for images in parts]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def check_limit(limit: int | None) -> None:
    """Raises `ValueError` for a limit that leaves no image, or goes beyond the stored order.

    Example:
        >>> check_limit(1000)
        >>> check_limit(0)
        Traceback (most recent call last):
        ValueError: You passed limit=0, but the stored order names ...
    """
    if limit is not None and not 1 <= limit <= NUM_STORED:
        raise ValueError(
            f"You passed limit={limit}, but the stored order names {NUM_STORED} images per set. Pass 1 to "
            f"{NUM_STORED}, or no limit for all images."
        )


def limited_sample_ids(name: str, size: int, limit: int, stored: Sequence[int] | None = None) -> list[int]:
    """Gives the rows that a limit takes: the first of the stored order or, without one, of the order by hash.

    Raises:
        ValueError: for a limit beyond the stored order.

    Example:
        >>> limited_sample_ids("shapes", size=8, limit=2, stored=[7, 0, 3, 1])
        [0, 7]
    """
    order = stored or draw_sample_ids(name, size)
    if len(order) < min(limit, size):
        raise ValueError(
            f"You passed limit={limit}, but {len(order)} sample ids of {name!r} are stored. Pass at most "
            f"{len(order)}, or store more in `sample_ids.json`."
        )
    return sorted(order[:limit])


def _open(entry: Mapping[str, Any], place: Place, load: Callable) -> list[Any]:
    """The set, as one data set for each of its configurations."""
    data_files = entry.get("data_files")
    folder = Path(place.name)
    if data_files and folder.is_dir() and not any(folder.glob(data_files)):
        data_files = None  # there may be folders of images in place of the Hub's archives

    split = entry.get("split", "test")
    return [
        load(place.name, config, split, revision=place.pinned, data_files=data_files) for config in _configs(entry)
    ]


def download_size(entry: Mapping[str, Any], place: Place) -> int | None:
    """The bytes of a set's files that are not in the cache, of all its configurations; `None` if they are not known.

    Args:
        entry (`dict`): Its fields, as `read_suite` gives them.
        place (`Place`): Where it is.
    """
    split, data_files = entry.get("split", "test"), entry.get("data_files")
    sizes = [place.num_bytes(config, split, data_files) for config in _configs(entry)]
    return None if None in sizes else sum(sizes)


def _configs(entry: Mapping[str, Any]) -> list[str | None]:
    """The configurations that make up a set."""
    configs = entry.get("config")
    return configs if isinstance(configs, list) else [configs]


def _problem(name: str, entry: Mapping[str, Any], place: Place) -> str | None:
    """Why a set cannot be evaluated, as far as the Hub says so before anything of it is read."""
    if place.problem:
        return f"{name!r}: {place.problem}"
    splits = [place.of_split(config, entry.get("split", "test")) for config in _configs(entry)]
    if None in splits or entry.get("drop_classes") or entry.get("by_name") or entry.get("data_files"):
        return None
    try:
        _check_size(name, entry, sum(split.num_rows for split in splits), is_strict=True)
    except ValueError as error:
        return str(error)
    return None


def _check_disk(sets: Mapping[str, tuple[Mapping[str, Any], Place]]) -> None:
    """Logs what will be downloaded, and raises `ValueError` where the disk has no place for it.

    The cache keeps files as they are on the Hub, and the rows of them.
    """
    sizes = [download_size(entry, place) or 0 for entry, place in sets.values()]
    needed = 2 * sum(sizes)
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if needed:
        logger.warning(
            "%.2f GB are downloaded, which take about twice as much in %s, where %.2f GB are free.",
            sum(sizes) / 1e9,
            cache,
            free / 1e9,
        )
    if needed > free:
        raise ValueError(
            f"The sets take about {needed / 1e9:.1f} GB in {cache}, where {free / 1e9:.1f} GB are free. Set HF_HOME "
            "to a larger disk, or pass a limit or some of the sets."
        )


def _check_size(name: str, entry: Mapping[str, Any], size: int, is_strict: bool) -> None:
    """Refuses a set of another size than the suite states, or warns of it if all of a local copy is evaluated."""
    least, most = size_range(entry) or (size, size)
    if least <= size <= most:
        return
    expected = f"{least}" if least == most else f"{least} to {most}"
    if is_strict:
        raise ValueError(
            f"{name!r} has {size} images, but {expected} are stated: this is another partition or a part of the set, "
            "with which neither figures nor sample ids agree. Load the stated split, or state `num_images` in a suite "
            "of your own."
        )
    logger.warning("%r has %d images in place of the stated %s; all of them are evaluated.", name, size, expected)
