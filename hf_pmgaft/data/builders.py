"""A split of a set as a value, and what makes it: a builder of `datasets` on the files of that split alone."""

from __future__ import annotations

import contextlib
import copy
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.arrow_reader import ArrowReader
from datasets.data_files import DataFilesDict
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

from .source_errors import FOREIGN, named_errors

# What `datasets` says of a set whose splits seem to have unlike formats, and where the cache has another split of it.
SIGNS_OF_UNLIKE_SPLITS = ("Couldn't infer the same data file format", "Couldn't find cache for")


def split_names(split: str) -> list[str]:
    """Lists the splits that a text names.

    Example:
        >>> split_names("train[:10%]+test")
        ['train', 'test']
    """
    return [re.sub(r"\[.*", "", part).strip() for part in split.split("+")]


@dataclass(frozen=True)
class Part:
    """What is read of a set: one split of one configuration, or several joined by `+`.

    Attributes:
        name, config, split, revision, data_files: See [`load_images`].

    Example:
        >>> Part("user/shapes", split="train[:10%]+test").splits
        ['train', 'test']
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    data_files: str | None = None

    @property
    def splits(self) -> list[str]:
        """The names of its splits, each once."""
        return list(dict.fromkeys(split_names(self.split)))

    @property
    def names_files(self) -> bool:
        """Whether single files were chosen, so that others may be missing."""
        return bool(self.data_files) and "*" not in self.data_files

    def named_errors(self) -> contextlib.AbstractContextManager[None]:
        """Raises what is raised inside as one line that names the set, its configuration and split."""
        return named_errors(self.name, self.config, self.split)


def builder_of(part: Part) -> datasets.DatasetBuilder | None:
    """What makes the split of its files; of the whole set where that is in the cache, or must be read for labels.

    `None` where only the cache has the set.
    """
    try:
        builder = builder_of_set(part)
    except (ConnectionError, ValueError) as error:
        was_reached = not (datasets.config.HF_HUB_OFFLINE or isinstance(error, ConnectionError))
        if was_reached or _cached_folder(part) is None:
            raise
        return None
    files = builder.config.data_files
    if not files:
        return builder if _has_splits(builder, part) or _cached_folder(part) is None else None

    if part.splits == ["all"]:
        return builder
    missing = [key for key in part.splits if key not in files]
    if missing:
        raise ValueError(f"{part.name} has no split {missing[0]!r}. It has: {list(map(str, files))}.")
    if set(part.splits) == set(files) or os.path.exists(builder.cache_dir):
        return builder

    options = {}
    if isinstance(builder, FolderBasedBuilder):
        options = _labels_of_all_splits(builder)
        if options is None:
            return builder
    return _of_splits(builder, part, builder.config.name, **options)


def _of_splits(builder: datasets.DatasetBuilder, part: Part, config: str, **options: Any) -> datasets.DatasetBuilder:
    """A builder of the part's splits alone, which in the cache has a folder of its own under `config`."""
    info = copy.deepcopy(builder.info)
    info.download_size = info.dataset_size = info.download_checksums = None
    if info.splits is not None:
        info.splits = datasets.SplitDict({key: value for key, value in info.splits.items() if key in part.splits})
    return type(builder)(
        dataset_name=builder.dataset_name,
        config_name=builder.config.name,
        config_id=None if builder.repo_id is None or part.data_files else _config_id(config, part),
        hash=builder.hash,
        base_path=builder.base_path,
        repo_id=builder.repo_id,
        info=info,
        data_files=DataFilesDict({key: builder.config.data_files[key] for key in part.splits}),
        **options,
    )


def builder_of_set(part: Part) -> datasets.DatasetBuilder:
    """What makes all splits of a set of their files.

    In the layout of CLIP benchmark each split has a text beside its shards. Of a split with one shard `datasets` takes
    the text in its place, and refuses the set if another split has more.
    """
    try:
        with named_errors(part.name, part.config):
            builder = datasets.load_dataset_builder(
                part.name, part.config, revision=part.revision, data_files=part.data_files or None
            )
    except (ConnectionError, ValueError) as error:
        shards = None
        if any(sign in str(error) for sign in SIGNS_OF_UNLIKE_SPLITS):
            with contextlib.suppress(*FOREIGN):
                shards = _builder_of_shards(part)
        if shards is None:
            raise
        return shards
    if builder.name == "text":
        return _builder_of_shards(part) or builder
    return builder


def _builder_of_shards(part: Part) -> datasets.DatasetBuilder | None:
    """What makes the splits of the shards `SPLIT/*.tar`, if each has some."""
    if part.data_files:
        return None
    shards = {key: f"{key}/*.tar" for key in part.splits}
    try:
        builder = datasets.load_dataset_builder(part.name, revision=part.revision, data_files=shards)
    except FileNotFoundError:
        return None
    return _of_splits(builder, part, "default")


def _labels_of_all_splits(builder: FolderBasedBuilder) -> dict[str, Any] | None:
    """How one split of a folder of images gets the labels that all splits give, by the names of files alone.

    `None` where they stand in archives.
    """
    if builder.config.features is not None or builder.config.drop_labels:
        return {}
    names = [str(file) for files in builder.config.data_files.values() for file in files]
    if any(name.lower().endswith(".zip") for name in names):
        return None
    if any(os.path.basename(name) in builder.METADATA_FILENAMES for name in names):
        return {}
    images = [name for name in names if os.path.splitext(name)[1].lower() in builder.EXTENSIONS]
    labels = {os.path.basename(os.path.dirname(name)) for name in images}
    is_labelled = len(labels) > 1 and len({name.count("/") for name in images}) == 1
    if not (is_labelled or builder.config.drop_labels is False):
        return {"drop_labels": True}
    label = datasets.ClassLabel(names=sorted(labels))
    features = datasets.Features({builder.BASE_COLUMN_NAME: builder.BASE_FEATURE(), "label": label})
    return {"features": features, "drop_labels": False}


# ---- The cache of datasets ----


def _config_id(config: str, part: Part) -> str:
    """How the cache calls a part of a configuration."""
    return f"{config}-only-{'-'.join(part.splits)}"


def _cached_folder(part: Part) -> Path | None:
    """The newest folder of the cache that holds a split of a set on the Hub, if there is one."""
    names = part.name.split("/")
    names[-1] = datasets.naming.camelcase_to_snakecase(names[-1])
    root = Path(datasets.config.HF_DATASETS_CACHE) / "___".join(names)
    folders = [path.parent for path in root.glob(f"{_config_id(part.config or '*', part)}/*/*/dataset_info.json")]
    return max(folders, key=lambda path: path.stat().st_mtime, default=None)


def from_cache(part: Part) -> datasets.Dataset:
    """The split as it was loaded before."""
    folder = _cached_folder(part)
    info = datasets.DatasetInfo.from_directory(str(folder))
    reader = ArrowReader(str(folder), info)
    splits = list(info.splits.values())
    return datasets.Dataset(**reader.read(name=info.dataset_name, instructions=part.split, split_infos=splits))


def _has_splits(builder: datasets.DatasetBuilder, part: Part) -> bool:
    """Whether a set that is taken from the cache has the splits that are asked for."""
    return set(part.splits) <= set(builder.info.splits or ())
