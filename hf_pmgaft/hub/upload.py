"""Uploads to the Hub: a model and what belongs to it, never a pickle nor a token."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import time
from concurrent.futures import Future
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, constants, run_as_future, upload_folder
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

logger = logging.getLogger(__name__)

EXTRA_STATE = "extra_state.safetensors"  # of a checkpoint, for a run to go on from
RUN = "run.json"  # of a run's folder: what was run, and how far it came
# What a model needs beside its weights, the processor's files apart.
CONFIGS = ("config.json", "adapter_config.json", "tuning.json", "training_config.json")
PICTURES = ("gallery.png", "robustness.png", "training_curves.png")  # that a run draws
# What is uploaded: weights, configuration, reports, tokenizer, card with its results, and pictures.
UPLOADED = [
    "*.safetensors",
    "*.json",
    "merges.txt",
    "vocab.txt",
    "*.model",
    "README.md",
    ".eval_results/*.yaml",
    *PICTURES,
]
NOT_UPLOADED = ["_*", RUN, "[!.]*/*"]  # the second: folders, such as checkpoints, merged models and trackers' logs
# Of a model of another kind, left in the repository by an earlier push, as which it would be loaded.
STALE = ["config.json", "model*.safetensors*", "adapter_*", "tuning.*"]
WAITS = (2, 8)  # seconds before a failed upload is tried again


def push_error(repo_id: str, token: str | None = None) -> Exception | None:
    """What a push to a repository, which need not be there yet, would fail with, as far as the Hub tells beforehand.

    Nothing is made there.
    """
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    try:
        user = api.whoami()
        name = repo_id if "/" in repo_id else f"{user['name']}/{repo_id}"
        validate_repo_id(name)
        try:
            api.auth_check(name, write=True)
        except RepositoryNotFoundError as missing:
            # It is made by the push, where the user may.
            owners = [user["name"], *(each["name"] for each in user.get("orgs", ()))]
            role = user.get("auth", {}).get("accessToken", {}).get("role")
            if role == "read" or name.partition("/")[0] not in owners:
                return missing
    except Exception as error:
        return error
    return None


def push_refusal(repo_id: str, error: Exception) -> str:
    """Says why a push would fail and what to do, from the error that was met before any training."""
    status = _status(error)
    what = "Try later, or leave push_to_hub out and push afterwards."
    if status == 401:
        what = "Run `hf auth login` or set HF_TOKEN to a valid one."
    elif status in (403, 404):
        what = "Pass hub_model_id='YOUR_NAME/clip-pmgaft', or a token with the role write."
    elif status is None and isinstance(error, ValueError):
        what = "Pass hub_model_id='YOUR_NAME/clip-pmgaft'."
    why = why_no_push(error)
    return f"You passed push_to_hub for the repository {repo_id!r}, but {why}. Nothing was trained. {what}"


def why_no_push(error: Exception) -> str:
    """Why the Hub does not take a push, from the error that it gave.

    Example:
        >>> why_no_push(ConnectionError("no route"))
        'the Hub cannot be reached (no route)'
    """
    status = _status(error)
    if status == 401:
        return "the Hub does not take the token"
    if status in (403, 404):
        return "the token has no right to write there: the name is another user's, or the token is for reading alone"
    if status is None and isinstance(error, ValueError):
        return str(error)
    return f"the Hub cannot be reached ({error})"


def upload(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    commit_message: str,
    token: str | None = None,
    revision: str | None = None,
    path_in_repo: str | None = None,
) -> CommitInfo:
    """Uploads the files of a folder that are for the Hub, as one commit; tries again if the line or the server fails.

    These are weights as safetensors, configuration, processor, tokenizer, card, reports and pictures. Pickles never
    are, so an uploaded checkpoint has no optimizer state (`optimizer.pt`, `scheduler.pt`, `rng_state.pth`): it is a
    model to evaluate or to start a new run from. Only the checkpoint on disk can be resumed from, and resuming from a
    download is refused by the name of the missing file.

    Raises:
        OSError: if it fails for good; the message holds the command that pushes the folder later.
    """
    for wait in (*WAITS, None):
        try:
            return upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                path_in_repo=path_in_repo,
                commit_message=commit_message,
                token=token,
                revision=revision,
                allow_patterns=list(UPLOADED),
                ignore_patterns=list(NOT_UPLOADED),
                delete_patterns=STALE if path_in_repo is None else None,
            )
        except Exception as error:
            if wait is None or not _passes(error):
                raise OSError(
                    f"The push to {repo_id!r} failed ({_cause(error)}). Nothing is lost: all of it is in {folder}. "
                    f"Push it with\n  {push_command(folder, repo_id, revision, path_in_repo)}"
                ) from error
            logger.warning("The push to %s failed (%s); trying again in %d s.", repo_id, _cause(error), wait)
        time.sleep(wait)


def push_command(
    folder: str | os.PathLike, repo_id: str, revision: str | None = None, path_in_repo: str | None = None
) -> str:
    """The command line that uploads the same files of a folder.

    Example:
        >>> push_command("clip", "user/clip").startswith("hf upload user/clip ")
        True
    """
    command = ["hf", "upload", repo_id, str(Path(folder).resolve()), path_in_repo or "."]
    command += [] if revision is None else ["--revision", revision]
    for flag, patterns in (("--include", UPLOADED), ("--exclude", NOT_UPLOADED)):
        command += [word for pattern in patterns for word in (flag, pattern)]
    return shlex.join(command)


def upload_in_background(folder: str | os.PathLike, repo_id: str, **options) -> Future:
    """Starts an [`upload`] in the client's thread, where uploads run one after the other."""
    return run_as_future(upload, folder, repo_id, **options)


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _passes(error: Exception) -> bool:
    """Whether it may work the next time. The client itself tries uploads again, not what comes before and after."""
    if (status := _status(error)) is not None:
        return status in (408, 429) or status >= 500
    return not isinstance(error, (OSError, ValueError, RuntimeError))  # a line that was lost is none of them


def _cause(error: Exception) -> str:
    """What went wrong, down to the server's answer or the lost line."""
    words = []
    while error is not None:
        words.append(" ".join(str(error).split()) or type(error).__name__)
        error = error.__cause__ if _status(error) is None else None
    return ": ".join(dict.fromkeys(words))


def copy_model_files(checkpoint: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Copies a checkpoint's model, without what only a resumed run needs, into another folder."""
    for path in Path(checkpoint).iterdir():
        is_model = path.name.endswith(".safetensors") and path.name != EXTRA_STATE
        if is_model or path.name in CONFIGS:
            shutil.copy(path, folder)
