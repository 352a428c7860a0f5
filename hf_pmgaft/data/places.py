"""What the Hub says of a set before anything of it is downloaded: its commit, and whether it may be read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetInfo, HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from .builders import split_names

SECONDS = 30  # to wait for the Hub's answer


@dataclass(frozen=True)
class SplitOnHub:
    """What a set's card states of a split: its rows, and the bytes of its files that are not in the cache.

    Example:
        >>> place = Place("user/photos", splits={("default", "test"): SplitOnHub(100, 5000)})
        >>> place.of_split(None, "test")
        SplitOnHub(num_rows=100, num_bytes=5000)
    """

    num_rows: int
    num_bytes: int


@dataclass(frozen=True)
class Place:
    """Where a set is.

    Attributes:
        name (`str`): Hub id, folder or file.
        revision (`str`, *optional*): Branch, tag or commit that was asked for.
        commit (`str`, *optional*): The commit that it is; not known of folders, and where the Hub is not reached.
        problem (`str`, *optional*): Why it cannot be read.
        splits (`dict`): By configuration and split the `SplitOnHub`, as far as the set's card states them.
        patterns (`dict`): By configuration and split the patterns of its files, as far as the card states them.
        files (`dict`): By their path the bytes of all files that are not in the cache.

    Example:
        >>> Place("user/photos", "main", "1a2b3c").describe(split="test")
        {'path': 'user/photos', 'split': 'test', 'revision': 'main', 'commit': '1a2b3c'}
    """

    name: str
    revision: str | None = None
    commit: str | None = None
    problem: str | None = None
    splits: dict[tuple[str, str], SplitOnHub] = field(default_factory=dict, compare=False, repr=False)
    patterns: dict[tuple[str, str], list[str]] = field(default_factory=dict, compare=False, repr=False)
    files: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def pinned(self) -> str | None:
        """The revision to load, so that what is recorded is what is read."""
        return self.commit or self.revision

    def of_split(self, config: str | None, split: str) -> SplitOnHub | None:
        """Gives what is known of a split, or of several joined by `+`; `None` if not all of it is stated."""
        config = config or self._default_config
        parts = [self.splits.get((config, part)) for part in split.split("+")]
        if None in parts:
            return None
        return SplitOnHub(sum(part.num_rows for part in parts), sum(part.num_bytes for part in parts))

    def num_bytes(self, config: str | None, split: str, data_files: str | None = None) -> int | None:
        """Gives the bytes of a split's files that are not in the cache, by the card's patterns or the files' names.

        Args:
            config, split, data_files: See [`load_images`].

        Returns:
            `int`, *optional*: `None` where neither tells the files. Of what is here it is 0.
        """
        if Path(self.name).exists():
            return 0
        config = config or self._default_config
        files: set[str] = set()
        for name in split_names(split):
            patterns = [data_files] if data_files else self.patterns.get((config, name))
            of_split = {file for file in self.files if _is_of(file, name, patterns)}
            if not of_split:
                return None
            files |= of_split
        return sum(self.files[file] for file in files)

    @property
    def _default_config(self) -> str:
        """The configuration if none is named: the only one, or that of this name."""
        configs = {name for name, _ in self.patterns}
        return next(iter(configs)) if len(configs) == 1 else "default"

    def describe(self, config: str | list[str] | None = None, split: str | None = None) -> dict[str, Any]:
        """What reports record of it. Of a path its last name alone, so that no report tells about a machine."""
        is_here = Path(self.name).exists()
        entry = {"path": Path(self.name).name if is_here else self.name, "config": config, "split": split}
        entry |= {"revision": self.revision, "commit": self.commit}
        return {key: value for key, value in entry.items() if value is not None}


def look_up(name: str, revision: str | None = None, seconds: float = SECONDS) -> Place:
    """Asks the Hub for a set. What is here, or cannot be asked for, is left to those who load it.

    Args:
        name (`str`): Hub id, or a folder or file.
        revision (`str`, *optional*): Branch, tag or commit.
        seconds (`float`): To wait for an answer.

    Example:
        >>> dataset.save_to_disk("shapes")
        >>> look_up("shapes")
        Place(name='shapes', revision=None, commit=None, problem=None)
    """
    if Path(name).exists():
        return Place(name)
    page = f"{constants.ENDPOINT}/datasets/{name}"
    listed: dict[str, Any] = {}
    try:
        api = HfApi(endpoint=constants.ENDPOINT)
        info = api.dataset_info(name, revision=revision, timeout=seconds, files_metadata=True)
        listed = _files_of(info)
        api.auth_check(name, repo_type="dataset")
    except GatedRepoError:
        problem = f"{name} is gated: accept its terms at {page}, and log in by `hf auth login` or set HF_TOKEN."
        return Place(name, revision, problem=problem, **listed)  # of a gated set all may know the files
    except RevisionNotFoundError:
        return Place(name, revision, problem=f"{name} has no revision {revision!r}. See {page}.")
    except RepositoryNotFoundError:
        problem = f"{name} is not on the Hub, or is private. Correct the name, or log in by `hf auth login`."
        return Place(name, revision, problem=problem)
    except Exception:  # offline, no answer, no Hub id: whoever loads the set finds it in the cache, or says why not
        return Place(name, revision)
    return Place(name, revision, info.sha, **listed)


def _files_of(info: DatasetInfo) -> dict[str, Any]:
    """Files, and of each split the patterns and what is stated: the card may state no files, or no rows."""
    files = {file.rfilename: file.size or 0 for file in info.siblings}
    missing = {file: 0 if _is_cached(info, file) else size for file, size in files.items()}
    card = info.card_data.to_dict() if info.card_data else {}
    stated = card.get("dataset_info") or []
    stated = [stated] if isinstance(stated, dict) else stated
    rows = {
        (entry.get("config_name", "default"), split["name"]): split["num_examples"]
        for entry in stated
        for split in entry.get("splits") or []
    }

    patterns = {
        (config["config_name"], part["split"]): _as_list(part["path"])
        for config in card.get("configs") or []
        for part in config.get("data_files") or []
        if isinstance(part, dict)
    }
    splits = {}
    for key in patterns.keys() & rows.keys():
        num_bytes = sum(size for file, size in missing.items() if _is_of(file, key[1], patterns[key]))
        splits[key] = SplitOnHub(rows[key], num_bytes)
    return {"splits": splits, "patterns": patterns, "files": missing}


def _is_of(file: str, split: str, patterns: list[str] | None) -> bool:
    """Whether a file is one of a split: by patterns or, without them, since a part of its path is the split's name."""
    if patterns:
        return any(fnmatch(file, pattern) for pattern in patterns)
    return split in re.split(r"[\W_]+", file)


def _as_list(paths: str | list[str]) -> list[str]:
    return [paths] if isinstance(paths, str) else paths


def _is_cached(info: DatasetInfo, file: str) -> bool:
    return isinstance(try_to_load_from_cache(info.id, file, revision=info.sha, repo_type="dataset"), str)
