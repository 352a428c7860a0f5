"""Where a model's name leads: to a folder, a file of weights, or a repository of the Hub at a revision."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

# Said aloud, since transformers would ask on the terminal whether to run a repository's code.
NO_CODE = {"trust_remote_code": False}
HUB_PREFIX, FOLDER_PREFIX = "hf-hub:", "local-dir:"  # as open_clip writes names
HUB_HOSTS = {"huggingface.co", "hf.co", urlsplit(constants.ENDPOINT).netloc}
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# Files of weights that are read here, and those that are not.
FILE_TYPES = (".pt", ".pth", ".tar", ".bin", ".safetensors", ".ckpt")
OTHER_FILES = {
    ".gguf": "weights that llama.cpp has quantised",
    ".onnx": "a graph of ONNX",
    ".msgpack": "weights of Flax",
    ".h5": "weights of TensorFlow",
    ".json": "a configuration without weights",
}


@dataclass(frozen=True)
class Source:
    """A folder, a file, or a repository of the Hub.

    Args:
        name (`str`): Path or Hub id.
        revision (`str`, *optional*): Branch, tag or commit of a repository.

    Example:
        >>> Source.of("hf-hub:chs20/fare2-clip@main")
        Source(name='chs20/fare2-clip', revision='main')
    """

    name: str
    revision: str | None = None

    @classmethod
    def of(cls, name: str | os.PathLike, revision: str | None = None) -> Source:
        """Understands what users type: paths with `~`, Hub ids and addresses, open_clip's prefixes, `ID@REVISION`.

        Raises:
            OSError: if there is no such path, and it can be no Hub id.
            ValueError: for an empty name, the address of something else, or two revisions.
        """
        text = os.fspath(name)
        if not text.strip():
            raise ValueError("You passed an empty model name. Pass a Hub id, a folder or a file of weights.")
        is_folder = text.startswith(FOLDER_PREFIX)
        text = text.removeprefix(FOLDER_PREFIX).removeprefix(HUB_PREFIX)

        # What is there
        path = Path(text).expanduser()
        if path.exists():
            if revision is not None:
                raise ValueError(
                    f"You passed revision {revision!r} with {text!r}, which is on this machine and has none. "
                    "Leave the revision out, or pass a Hub id."
                )
            _check_file(path)
            return cls(str(path))
        if is_folder or ("://" not in text and _looks_like_path(text)):
            raise FileNotFoundError(
                f"You passed {os.fspath(name)!r}, but there is no such file or folder. Check the path, or pass a Hub "
                "id, OWNER/NAME."
            )

        # What may be on the Hub
        if "://" in text:
            text, named = _from_address(text)
        else:
            text, _, named = text.rstrip("/").partition("@")
        if named and revision not in (None, named):
            raise ValueError(f"You passed {os.fspath(name)!r} with revision {revision!r}. Pass one of the two.")
        if not HUB_ID.fullmatch(text):
            raise FileNotFoundError(
                f"You passed {os.fspath(name)!r}, which is no file or folder here and cannot be a Hub id, OWNER/NAME. "
                "Check the spelling."
            )
        return cls(text, revision or named or None)

    @property
    def is_file(self) -> bool:
        """Whether it is a file of weights."""
        return Path(self.name).is_file()

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, outside the Hub's cache."""
        return Path(self.name).exists()

    @property
    def _is_in_cache(self) -> bool:
        """Whether the cache of the Hub knows the repository: its files, or which it lacks."""
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.name, repo_type="model")
        return any(folder.glob("*/*"))

    def find(self, file: str) -> str | None:
        """The path of a file in the folder or repository, downloaded if need be; `None` if it has none.

        Beside a file of weights it finds those of the same folder.

        Raises:
            ConnectionError: if the Hub is not reached, and nothing of the repository is in its cache.
            OSError: if there is no such repository, or no right to it.
        """
        if self.is_local:
            path = Path(self.name)
            path = (path.parent if self.is_file else path) / file
            return str(path) if path.is_file() else None
        try:
            path = cached_file(
                self.name,
                file,
                revision=self.revision,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                _raise_exceptions_for_gated_repo=False,
            )
        except OSError as error:
            raise self.unreachable(error) from error
        if path is None and not self._is_in_cache:
            why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} gives no answer"
            raise ConnectionError(
                f"{self} is no folder here and not in the cache of the Hub, which was not reached ({why}). Load it "
                "once while the Hub can be reached: what was loaded is found offline, too."
            )
        return path

    def check_reached(self) -> None:
        """Raises `OSError` for a repository that is not on the Hub, or neither reached nor in its cache."""
        if not self.is_local:
            self.find("config.json")

    def unreachable(self, error: Exception) -> OSError:
        """What transformers said of a repository that it could not read, in one line with its name."""
        reason = str(error).strip().partition("\n")[0]
        return OSError(
            f"{self} is no folder here, and cannot be had from the Hub: {reason} Check the name, and your right to it."
        )

    def commit(self, file: str) -> str | None:
        """The commit of the Hub that a file found here belongs to."""
        return None if self.is_local else extract_commit_hash(file, None)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def _check_file(path: Path) -> None:
    if path.suffix in OTHER_FILES:
        raise ValueError(
            f"You passed {str(path)!r}, which holds {OTHER_FILES[path.suffix]}. Pass the folder of a model in "
            f"safetensors, or a file of weights ({', '.join(FILE_TYPES)})."
        )


def _looks_like_path(text: str) -> bool:
    return text.startswith(("/", ".", "~")) or "\\" in text or Path(text).suffix in (*FILE_TYPES, *OTHER_FILES)


def _from_address(address: str) -> tuple[str, str]:
    """The repository and revision in an address of the Hub, such as `https://HUB/OWNER/NAME/tree/main`."""
    parts = urlsplit(address)
    names = unquote(parts.path).strip("/").split("/")
    if parts.netloc not in HUB_HOSTS or len(names) < 2 or names[0] in ("datasets", "spaces"):
        raise ValueError(
            f"You passed the address {address!r}, which is no model of the Hub. Download it, and pass the file or "
            "folder."
        )
    repository = "/".join(names[:2])
    if len(names) > 4:
        raise ValueError(
            f"You passed the address of one file, {address!r}. Pass the repository, {repository!r}, or download the "
            "file and pass its path."
        )
    return repository, names[3] if len(names) == 4 else ""
