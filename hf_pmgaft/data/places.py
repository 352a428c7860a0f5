"""What the Hub says of a set before anything of it is downloaded: its commit, and whether it may be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetInfo, HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

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

    Example:
        >>> Place("user/photos", "main", "1a2b3c").describe(split="test")
        {'path': 'user/photos', 'split': 'test', 'revision': 'main', 'commit': '1a2b3c'}
    """

    name: str
    revision: str | None = None
    commit: str | None = None
    problem: str | None = None
    splits: dict[tuple[str, str], SplitOnHub] = field(default_factory=dict, compare=False, repr=False)

    @property
    def pinned(self) -> str | None:
        """The revision to load, so that what is recorded is what is read."""
        return self.commit or self.revision

    def of_split(self, config: str | None, split: str) -> SplitOnHub | None:
        """Gives what is known of a split, or of several joined by `+`; `None` if not all of it is stated."""
        configs = {name for name, _ in self.splits}
        config = config or (next(iter(configs)) if len(configs) == 1 else "default")
        parts = [self.splits.get((config, part)) for part in split.split("+")]
        if None in parts:
            return None
        return SplitOnHub(sum(part.num_rows for part in parts), sum(part.num_bytes for part in parts))

    def describe(self, config: str | list[str] | None = None, split: str | None = None) -> dict[str, Any]:
        """What reports record of it. Of a path its last name alone, so that no report tells about a machine."""
        is_here = Path(self.name).exists()
        entry = {"path": Path(self.name).name if is_here else self.name, "config": config, "split": split}
        entry |= {"revision": self.revision, "commit": self.commit}
        return {key: value for key, value in entry.items() if value is not None}


def look_up(name: str, revision: str | None = None) -> Place:
    """Asks the Hub for a set. What is here, or cannot be asked for, is left to those who load it.

    Args:
        name (`str`): Hub id, or a folder or file.
        revision (`str`, *optional*): Branch, tag or commit.

    Example:
        >>> dataset.save_to_disk("shapes")
        >>> look_up("shapes")
        Place(name='shapes', revision=None, commit=None, problem=None)
    """
    if Path(name).exists():
        return Place(name)
    page = f"{constants.ENDPOINT}/datasets/{name}"
    try:
        api = HfApi(endpoint=constants.ENDPOINT)
        info = api.dataset_info(name, revision=revision, timeout=SECONDS, files_metadata=True)
        api.auth_check(name, repo_type="dataset")
    except GatedRepoError:
        problem = f"{name} is gated: accept its terms at {page}, and log in by `hf auth login` or set HF_TOKEN."
        return Place(name, revision, problem=problem)
    except RevisionNotFoundError:
        return Place(name, revision, problem=f"{name} has no revision {revision!r}. See {page}.")
    except RepositoryNotFoundError:
        problem = f"{name} is not on the Hub, or is private. Correct the name, or log in by `hf auth login`."
        return Place(name, revision, problem=problem)
    except Exception:  # offline, no answer, no Hub id: whoever loads the set finds it in the cache, or says why not
        return Place(name, revision)
    return Place(name, revision, info.sha, splits=_splits(info))


def _splits(info: DatasetInfo) -> dict[tuple[str, str], SplitOnHub]:
    """The splits of a set, as its card states them; none where it states no rows or no files."""
    card = info.card_data.to_dict() if info.card_data else {}
    stated = card.get("dataset_info") or []
    stated = [stated] if isinstance(stated, dict) else stated
    rows = {
        (entry.get("config_name", "default"), split["name"]): split["num_examples"]
        for entry in stated
        for split in entry.get("splits") or []
    }

    splits = {}
    for config in card.get("configs") or []:
        for part in config.get("data_files") or []:
            key = (config["config_name"], part["split"]) if isinstance(part, dict) else None
            if key in rows:
                patterns = [part["path"]] if isinstance(part["path"], str) else part["path"]
                files = [file for file in info.siblings if any(fnmatch(file.rfilename, each) for each in patterns)]
                sizes = [file.size or 0 for file in files if not _is_cached(info, file.rfilename)]
                splits[key] = SplitOnHub(rows[key], sum(sizes))
    return splits


def _is_cached(info: DatasetInfo, file: str) -> bool:
    return isinstance(try_to_load_from_cache(info.id, file, revision=info.sha, repo_type="dataset"), str)
