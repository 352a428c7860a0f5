"""Uploads to the Hub: a model and what belongs to it, never a pickle nor a token."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import time
from concurrent.futures import Future
from pathlib import Path

from huggingface_hub import CommitInfo, auth_check, run_as_future, upload_folder
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from ..distributed import gather
from ..models.backbones import unwrap
from ..tuning.base import attachment
from ..tuning.peft_adapter import has_adapter

logger = logging.getLogger(__name__)

EXTRA_STATE = "extra_state.safetensors"  # of a checkpoint, to go on from
# What a model needs beside its weights, the processor's files apart.
CONFIGS = ("config.json", "adapter_config.json", "tuning.json", "training_config.json")
# What is uploaded: weights, configuration, reports, tokenizer, card with its results, and pictures.
UPLOADED = [
    "*.safetensors",
    "*.json",
    "merges.txt",
    "vocab.txt",
    "*.model",
    "README.md",
    ".eval_results/*.yaml",
    "*.png",
]
NOT_UPLOADED = ["_*", "[!.]*/*"]  # the second: folders, such as checkpoints, merged models and trackers' logs
# Of a model of another kind, left in the repository by an earlier push, as which it would be loaded.
STALE = ["config.json", "model*.safetensors*", "adapter_*", "tuning.*"]
WAITS = (2, 8)  # seconds before a failed upload is tried again


class Pushing:
    """The part of [`PMGAFTTrainer`] that meets the Hub."""

    push_in_progress: PushInProgress | None = None
    _pushed_folder: Path | None = None  # the checkpoint that is being uploaded

    def init_hf_repo(self, token=None, private=None) -> None:
        """Creates the repository, or finds that a push to it would fail, before training.

        Raises:
            ValueError: on all processes, for a token that is not valid or may not write there, a name that the Hub
                does not take, or a Hub that cannot be reached.
        """
        reason = None
        try:
            super().init_hf_repo(token, private)
            if self.is_world_process_zero():
                auth_check(self.hub_model_id, token=token or self.args.hub_token, write=True)
        except Exception as error:
            reason = _refusal(self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).name, error)
        answers = gather([(reason, self.hub_model_id)])
        if any(reason for reason, _ in answers):
            raise ValueError(next(reason for reason, _ in answers if reason))
        self.hub_model_id = next(name for _, name in answers if name)
        self.args.hub_model_id = self.hub_model_id  # with its user, as the card's snippets need it

    def push_to_hub(
        self,
        commit_message="End of training",
        blocking=True,
        token=None,
        revision=None,
        private=None,
        merged=False,
        **card,
    ):
        """Saves the model and uploads it with its processor, card, reports and pictures; no pickle and no token.

        Args:
            commit_message, blocking, token, revision, private: As in `Trainer.push_to_hub`.
            merged (`bool`): Upload, in place of an adapter, the plain model that it makes of its base.
            card: Further arguments of `create_model_card`.

        Raises:
            OSError: if the upload fails for good; all of it is on disk, and the message says how to push it.
            ValueError: with `merged`, for learned prompts, which a plain model has no place for.
        """
        if merged:
            self.check_merges()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.save_model(_internal_call=True)
        self.save_reports()
        folder = Path(self.args.output_dir)
        if merged:
            self.save_merged(str(folder / "merged"))
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**card)
        if merged:
            for path in (*folder.glob("*.png"), *folder.glob("robustness*.json")):
                shutil.copy(path, folder / "merged")
            folder = folder / "merged"
            self.create_model_card(folder=folder)
        elif self._base_name and Path(self._base_name).is_dir() and (has_adapter(self.model) or self._attached()):
            logger.warning(
                "What is pushed loads beside its base model, a folder of this machine (%s). Push the base model too "
                "and train from its Hub name, or push the merged model (`merged=True`, --push_merged).",
                self._base_name,
            )
        self._finish_current_push()
        options = {"commit_message": commit_message, "token": token or self.args.hub_token}
        options["revision"] = revision or self.args.hub_revision
        return (upload if blocking else upload_in_background)(folder, self.hub_model_id, **options)

    def check_merges(self) -> None:
        """Raises `ValueError` if what is trained cannot become a plain model."""
        added = self._attached()
        if added is not None and not added.folds:
            added.fold(self.model)

    def _attached(self):
        return attachment(unwrap(self.model))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Uploads a checkpoint's model while training goes on, and with `hub_strategy` `"checkpoint"` or
        `"all_checkpoints"` its folder too, both as [`upload`] does: without pickles.

        Trainer's own version writes and uploads a pickle of the arguments, token included.
        """
        args = self.args
        if not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if self._is_pushing() and not args.hub_always_push:
            return
        self._finish_current_push()  # what it reads is about to be written over
        for path in Path(checkpoint_folder).iterdir():
            if path.name in CONFIGS or path.name.endswith(".safetensors") and path.name != EXTRA_STATE:
                shutil.copy(path, args.output_dir)
        self.processing_class.save_pretrained(args.output_dir)
        options = {"token": args.hub_token, "revision": args.hub_revision}
        options["commit_message"] = f"Training in progress, step {self.state.global_step}"
        jobs = [upload_in_background(args.output_dir, self.hub_model_id, **options)]
        if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            latest = args.hub_strategy == HubStrategy.CHECKPOINT
            options["path_in_repo"] = "last-checkpoint" if latest else Path(checkpoint_folder).name
            jobs.append(upload_in_background(checkpoint_folder, self.hub_model_id, **options))
        self.push_in_progress, self._pushed_folder = PushInProgress(jobs), Path(checkpoint_folder)

    def _is_pushing(self) -> bool:
        return self.push_in_progress is not None and not self.push_in_progress.is_done()

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        jobs = self.push_in_progress.jobs if self.push_in_progress else []
        for error in filter(None, (job.exception() for job in jobs)):
            logger.warning("An upload during training failed, which the next one makes good. %s", error)
        self.push_in_progress = None


def _refusal(repo_id: str, error: Exception) -> str:
    """Why a push would fail, and what to do, before any training."""
    status = _status(error)
    if status == 401:
        why, what = "the Hub does not take the token", "Run `hf auth login` or set HF_TOKEN to a valid one."
    elif status in (403, 404):
        why = "the token has no right to write there: the name is another user's, or the token is for reading alone"
        what = "Pass hub_model_id='YOUR_NAME/clip-pmgaft', or a token with the role write."
    elif status is None and isinstance(error, ValueError):
        why, what = str(error), "Pass hub_model_id='YOUR_NAME/clip-pmgaft'."
    else:
        why, what = f"the Hub cannot be reached ({error})", "Try later, or leave push_to_hub out and push afterwards."
    return f"You passed push_to_hub for the repository {repo_id!r}, but {why}. Nothing was trained. {what}"


def upload(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    commit_message: str,
    token: str | None = None,
    revision: str | None = None,
    path_in_repo: str | None = None,
) -> CommitInfo:
    """Uploads what of a folder is for the Hub, as one commit; again if line or server fail, since nothing comes twice.

    That is weights as safetensors, configuration, processor, tokenizer, card, reports and pictures. Pickles never are,
    so an uploaded checkpoint has no optimizer state (`optimizer.pt`, `scheduler.pt`, `rng_state.pth`): it is a model
    to evaluate or to start a new run from. Only the checkpoint on disk can be resumed from, and resuming from a
    download is refused by the name of the missing file.

    Raises:
        OSError: if it fails for good; the message holds the command that pushes the folder later.
    """
    options = {"repo_id": repo_id, "token": token, "revision": revision, "commit_message": commit_message}
    options |= {"folder_path": folder, "path_in_repo": path_in_repo, "allow_patterns": list(UPLOADED)}
    options |= {"delete_patterns": STALE if path_in_repo is None else None, "ignore_patterns": list(NOT_UPLOADED)}
    for wait in (*WAITS, None):
        try:
            return upload_folder(**options)
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
    """The command line that uploads the same files of a folder."""
    command = ["hf", "upload", repo_id, str(Path(folder).resolve()), path_in_repo or "."]
    command += [] if revision is None else ["--revision", revision]
    for flag, patterns in (("--include", UPLOADED), ("--exclude", NOT_UPLOADED)):
        command += [word for pattern in patterns for word in (flag, pattern)]
    return shlex.join(command)


def upload_in_background(folder: str | os.PathLike, repo_id: str, **options) -> Future:
    """[`upload`] in the client's thread, one after the other."""
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
