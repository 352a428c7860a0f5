"""What a run downloads, as the Hub tells without a download, and whether the disk has room for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import datasets
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from ..data.sources import parse_set, split_revision
from ..models.sources import Source
from ..suites.known import find_known_set
from ..suites.loading import download_size, place_of
from ..suites.suite import read_suite
from .run_plan import Plan

SECONDS = 10  # to wait for each answer of the Hub
NUM_THREADS = 32  # so that no model or set waits for another
NOT_REACHED = "the Hub is not reachable"
# Files of weights by the order in which they are looked for, and what is read beside them.
WEIGHTS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
    "adapter_model.safetensors",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
BESIDE = ("*.json", "*.txt", "*.model")


@dataclass(frozen=True)
class Download:
    """A model or a set.

    Args:
        name (`str`): As the command line or the suite calls it.
        num_bytes (`int`, *optional*): What is not in the cache; `None` if it is not known.
        problem (`str`, *optional*): Why it cannot be had, or its size not be told.

    Example:
        >>> Download("tiny_imagenet", 158_000_000)
        Download(name='tiny_imagenet', num_bytes=158000000, problem=None)
    """

    name: str
    num_bytes: int | None
    problem: str | None = None


@dataclass(frozen=True)
class Downloads:
    """What a run downloads.

    Args:
        models, training, evaluation (list of `Download`): By what they are for.
    """

    models: list[Download]
    training: list[Download]
    evaluation: list[Download]

    @property
    def all(self) -> list[Download]:
        """All of them."""
        return [*self.models, *self.training, *self.evaluation]

    def rows(self) -> dict[str, str]:
        """Sizes and problems in words."""
        if any(each.problem == NOT_REACHED for each in self.all):
            return {"downloads": f"unknown: {NOT_REACHED}"}
        parts = {"model": self.models, "training set": self.training, "evaluation sets": self.evaluation}
        listed = ", ".join(f"{what} {_size(part)}" for what, part in parts.items() if part)
        rows = {"downloads": f"at most {_size(self.all)}: {listed}"}
        problems = [each.problem for each in self.all if each.problem]
        if problems:
            rows["not there"] = " ".join(dict.fromkeys(problems))
        return rows


def find_downloads(plan: Plan) -> Downloads:
    """Asks the Hub, by two requests for each model and set at most, and downloads nothing."""
    model_args, data_args = plan.model_args, plan.data_args
    models = {model_args.model_name_or_path: model_args.revision}
    if model_args.teacher_name_or_path:
        models.setdefault(model_args.teacher_name_or_path, None)
    suite = {}
    if data_args.suite and not data_args.data_root:  # where copies of its sets are
        suite = read_suite(data_args.suite)
    names = [name for name in data_args.suite_sets or suite if name in suite]

    asked = {
        "models": [partial(_model, name, revision) for name, revision in models.items() if name],
        "training": [partial(_named_set, data_args.dataset_name, is_trained_on=True)],
        "evaluation": [
            *(partial(_set, name, suite[name]) for name in names),
            *(partial(_named_set, text) for text in [*data_args.eval_sets, *data_args.retrieval_sets]),
            *(partial(_named_set, text, is_trained_on=True) for text in data_args.support_sets),
        ],
    }
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        futures = {key: [pool.submit(ask) for ask in asks] for key, asks in asked.items()}
        return Downloads(**{key: [future.result() for future in each] for key, each in futures.items()})


# ---- One model or set ----


def _model(name: str, revision: str | None) -> Download:
    """The files that opening a model reads."""
    source = Source.of(name, revision)
    if source.is_local:
        return Download(name, 0)
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        info = api.model_info(source.name, revision=source.revision, files_metadata=True, timeout=SECONDS)
    except RevisionNotFoundError:
        return Download(name, None, f"{name} has no revision {source.revision!r}.")
    except RepositoryNotFoundError:  # gated ones, too
        return Download(name, None, f"{name} is not here, and not on the Hub, or not for all.")
    except Exception:  # offline, no answer
        return Download(name, None, NOT_REACHED)

    sizes = {file.rfilename: file.size or 0 for file in info.siblings if "/" not in file.rfilename}
    cached = {file for file in sizes if isinstance(try_to_load_from_cache(info.id, file, revision=info.sha), str)}
    return Download(name, sum(sizes[file] for file in _files_read(sizes) - cached))


def _files_read(files: Iterable[str]) -> set[str]:
    """Of a model's files its weights in the first layout that is there, and what describes model and processor."""
    weights: list[str] = []
    for pattern in WEIGHTS:
        if not weights:
            weights = [file for file in files if fnmatch(file, pattern)]
    beside = [file for file in files if any(fnmatch(file, pattern) for pattern in BESIDE)]
    return {*weights, *beside}


def _named_set(text: str, is_trained_on: bool = False) -> Download:
    """A set as the command line names it."""
    known = find_known_set(text)
    if known is not None:
        return _set(text, known.to_train_on() if is_trained_on else known.entry)
    name, revision = split_revision(text)
    path, config, split = parse_set(name, "train" if is_trained_on else "test")
    return _set(text, {"path": path, "revision": revision, "config": config, "split": split})


def _set(name: str, entry: dict) -> Download:
    """A set as a suite states it."""
    place = place_of(name, entry, seconds=SECONDS)
    is_here = Path(place.name).exists()
    if not (is_here or place.commit or place.problem):
        return Download(name, None, NOT_REACHED)
    return Download(name, download_size(entry, place), place.problem)


# ---- Room ----


def find_needs(plan: Plan, downloads: Downloads, checkpoints: int | None) -> list[tuple[Path, int]]:
    """By folder the bytes that a run writes there at most, as far as they are known.

    `datasets` keeps files as they are on the Hub, and rows of them. Under a limit it keeps single rows of most sets; a
    stream is not kept.
    """
    copies = 1 if plan.data_args.limit else 2
    sets = copies * _total(downloads.evaluation)
    if not plan.data_args.streaming:
        sets += 2 * _total(downloads.training)
    return [
        (Path(plan.config.output_dir), checkpoints or 0),
        (Path(constants.HF_HUB_CACHE), _total(downloads.models)),
        (Path(datasets.config.HF_DATASETS_CACHE), sets),
    ]


def describe_room(needs: Sequence[tuple[Path, int]]) -> str:
    """What is written where, and what is free there."""
    parts = []
    for folder, num_bytes in needs:
        if num_bytes:
            free = shutil.disk_usage(_existing(folder)).free
            parts.append(f"{_gigabytes(num_bytes)} in {folder}, where {_gigabytes(free)} are free")
    return "at most " + "; ".join(parts) if parts else "nothing that is known"


def find_shortage(needs: Sequence[tuple[Path, int]]) -> str | None:
    """Why the disk is too small for a run, if it is; folders of one disk share it."""
    needed: dict[int, int] = {}
    for folder, num_bytes in needs:
        disk = os.stat(_existing(folder)).st_dev
        needed[disk] = needed.get(disk, 0) + num_bytes

    for folder, _ in needs:
        disk = os.stat(_existing(folder)).st_dev
        free = shutil.disk_usage(_existing(folder)).free
        if needed[disk] > free:
            return (
                f"The run may write {_gigabytes(needed[disk])} to the disk of {folder}, where {_gigabytes(free)} are "
                "free. Set --output_dir or HF_HOME to a larger disk, pass --streaming true, or start it by `pmgaft "
                "train --recipe` if you know that it fits."
            )
    return None


def _existing(folder: Path) -> Path:
    """The folder, or the one above it that is there already."""
    folder = folder.expanduser().resolve()
    while not folder.exists():
        folder = folder.parent
    return folder


def _total(downloads: Sequence[Download]) -> int:
    return sum(each.num_bytes or 0 for each in downloads)


def _size(downloads: Sequence[Download]) -> str:
    """The size of several downloads, and how many are not in it."""
    unknown = [each.name for each in downloads if each.num_bytes is None]
    size = _gigabytes(_total(downloads))
    return f"{size} without {', '.join(unknown)}" if unknown else size


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
