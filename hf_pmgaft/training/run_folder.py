"""The folder that a run writes: used by one run at a time, and never by two of different settings."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from transformers import TrainingArguments

from ..distributed import gather, process_share
from ..files import kept_if_used, write_whole
from ..fingerprints import differences
from ..hub.upload import PICTURES, RUN
from ..tuning.saved import TRAINING_CONFIG
from .checkpoints import defect, has_foreign_state, steps

try:
    import fcntl
except ImportError:  # as on Windows
    fcntl = None

logger = logging.getLogger(__name__)

LOCK = "run.lock"
# How far a run came: it began; all steps are made; and what its command writes afterwards is there, too.
BEGUN, TRAINED, FINISHED = "begun", "trained", "finished"

# What is written beside checkpoints. Of models, reports and pictures there are no others.
MODELS = ("model.safetensors", "adapter_model.safetensors", "tuning.safetensors", "model.safetensors.index.json")
REPORTS = ("robustness.json", "robustness_before.json", "robustness_final.json")
BESIDE_MODELS = (
    *("config.json", "adapter_config.json", "tuning.json", TRAINING_CONFIG, "class_embeds.safetensors"),
    *("preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
)
# Of a configuration, what changes nothing of a run's results.
IRRELEVANT = {
    *("output_dir", "overwrite", "resume_from_checkpoint", "do_train", "do_predict", "run_name", "project"),
    *("report_to", "disable_tqdm", "push_to_hub", "enable_jit_checkpoint", "include_num_input_tokens_seen"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size"),
    *("total_train_batch_size",),
    *("local_rank", "skip_memory_metrics", "use_cpu"),
}
IRRELEVANT_KINDS = ("hub_", "log", "save_", "dataloader_num", "dataloader_p", "ddp_", "trackio_", "push_to_hub_")


def settings_of(args: TrainingArguments, command: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What makes two runs the same, as JSON holds it: the configuration, and the other options of a command."""
    config = {
        name: value
        for name, value in args.to_dict().items()
        if name not in IRRELEVANT and not name.startswith(IRRELEVANT_KINDS) and not name.endswith("_token")
    }
    config["images_per_step"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return json.loads(json.dumps({"config": config, "command": command}, default=str))


class RunFolder:
    """The folder of one run, and what it says of itself in `run.json`.

    All processes of a launch ask together; the first one reads and writes.

    Args:
        path (`str`): The folder, which need not be there yet.
        settings (`dict`): What [`settings_of`] gives.

    Attributes:
        is_own (`bool`): Whether what lies in it is of this run, or of this process.

    Example:
        >>> folder = RunFolder(".", {"config": {"eps": "4/255"}})
        >>> folder.check()
        >>> folder.begin()
        >>> Path("model.safetensors").touch()
        >>> folder.note(FINISHED, step=3)
        >>> RunFolder(".", {"config": {"eps": "4/255"}}).is_finished()
        True
        >>> RunFolder(".", {"config": {"eps": "8/255"}}).check()
        Traceback (most recent call last):
        ValueError: ... holds another run, which differs in config.eps ('4/255' there, '8/255' now)...
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]):
        self.path = Path(path)
        self.settings = settings
        self.is_own = False
        self._is_current = False  # whether reports may be of the weights as they are

    # ---- One at a time ----

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out, as long as this process lives; within it, the folder may be locked again.

        The folder is made if need be, and removed again if nothing was written into it.

        Where a file system knows no locks, a warning says so.

        Raises:
            ValueError: if another run is using the folder.
        """
        with kept_if_used(self.path) if _is_first() else contextlib.nullcontext():
            file, reason = None, None
            if _is_first():
                file, reason = _lock(self.path / LOCK)
            _raise_everywhere(reason)
            try:
                yield
            finally:
                if file is not None:
                    _unlock(self.path / LOCK)

    # ---- Whose it is ----

    def note_use(self, folder: str | os.PathLike) -> None:
        """Notes, before something is written into a folder, whether it is this one and holds nothing of others."""
        if Path(folder).resolve() == self.path.resolve():
            self.is_own = self.is_own or not self._holdings()

    def holds(self, path: str | os.PathLike) -> bool:
        """Whether a folder, such as a checkpoint, lies in this one or is it."""
        path = Path(path).resolve()
        return self.path.resolve() in (path, *path.parents)

    def is_finished(self) -> bool:
        """Whether it holds a run of the same settings that has written all it was to write."""
        record = self._read()
        finished = record is not None and record["state"] == FINISHED and not self._differing(record)
        if finished:
            # Checkpoints that were taken away since are to be made again, from the one before them.
            newest = self._newest()
            finished = bool(self._holdings()) and not 0 < newest < record.get("checkpoint", 0)
        return gather([finished])[0]

    def check(
        self,
        resume_from_checkpoint: str | os.PathLike | bool | None = None,
        overwrite: bool = False,
        read: Sequence[str | None] = (),
    ) -> None:
        """Raises `ValueError` if the folder is another run's, or this one's and not to be gone on with.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): As in `train`. What lies beside a checkpoint of this
                folder has to be of this run.
            overwrite (`bool`): Whether an earlier run is to be removed.
            read (`list[str]`): Models that the run reads, which must not be removed.
        """
        reason = None
        if _is_first() and not self.is_own:
            reason = self._refusal(resume_from_checkpoint, overwrite, read)
        _raise_everywhere(reason)

    def begin(self, resume_from_checkpoint: str | os.PathLike | bool | None = None, overwrite: bool = False) -> None:
        """Writes down what is run here, and removes what is left of a run that is not gone on with."""
        if _is_first():
            if not self.is_own and not self._goes_on(resume_from_checkpoint):
                if overwrite or not self._is_before_training():
                    self._remove_verdicts()
                if overwrite or self._read() is not None:
                    self._clear()
                    self._forget_results()
            self._write(BEGUN, 0)
        gather([None])
        self.is_own = True
        self._is_current = True

    def before_steps(self) -> None:
        """Removes what is of weights that are about to change: reports, pictures, the card and merged models."""
        if _is_first() and self._is_current:
            self._forget_results()
        self._is_current = False

    def note(self, state: str, step: int) -> None:
        """Writes down how far the run came: `"trained"` or `"finished"`."""
        if _is_first():
            self._write(state, step)

    def forget_verdicts(self) -> None:
        """Removes what evaluations keep until their reports are written, for a run that was stopped to go on."""
        if _is_first():
            self._remove_verdicts()
        gather([None])

    def how_to_go_on(self) -> str:
        """What goes on with a run that is stopped now, in one sentence."""
        newest = self._newest()
        if newest:
            return f"With --resume_from_checkpoint true, the same command goes on from checkpoint-{newest}."
        if self._holdings():
            return "No checkpoint was saved: with --overwrite true, the same command begins anew."
        return "The same command goes on."

    # ---- What it holds ----

    def _newest(self) -> int:
        """The step of the newest complete checkpoint, 0 without any."""
        return next((step for step, path in steps(self.path).items() if defect(path) is None), 0)

    def _is_before_training(self) -> bool:
        """Whether it is of this run, which was stopped before anything was trained."""
        record = self._read()
        return record is not None and record["state"] == BEGUN and not (self._holdings() or self._differing(record))

    def _goes_on(self, checkpoint: str | os.PathLike | bool | None) -> bool:
        return checkpoint is True or bool(checkpoint and self.holds(checkpoint))

    def _refusal(
        self, checkpoint: str | os.PathLike | bool | None, overwrite: bool, read: Sequence[str | None]
    ) -> str | None:
        """Why this run must not write here, or `None` if it may."""
        where = f"You passed output_dir={str(self.path)!r}, which"
        if overwrite and self._goes_on(checkpoint):
            return (
                f"{where} is to be overwritten, and resumed from at once. Leave out overwrite or "
                "resume_from_checkpoint."
            )
        for path in steps(self.path).values():
            if has_foreign_state(path):
                return f"{where} holds {path.name} of another trainer, which may be needed. Pass another folder."
        if self._goes_on(checkpoint):
            return None

        holdings, record = self._holdings(), self._read()
        if overwrite:
            return self._why_not_overwritten(where, holdings, record, read)
        if not holdings:
            return None
        begin_anew = "pass another output_dir, or --overwrite true to remove that run"
        if record is None:
            return f"{where} holds {holdings[0]} of a run of which nothing is known. To be safe, {begin_anew}."

        go_on = "--resume_from_checkpoint true to go on from its last checkpoint, or "
        if not any(defect(path) is None for path in steps(self.path).values()):
            go_on = ""
        differing = self._differing(record)
        if differing:
            key, (there, now) = next(iter(differing.items()))
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            return (
                f"{where} holds another run, which differs in {key} ({there!r} there, {now!r} now){more}. Pass "
                f"{go_on}another output_dir, or --overwrite true to remove that run."
            )
        if record["state"] == BEGUN:
            return f"{where} holds this run, which was not finished. Pass {go_on}--overwrite true to begin anew."
        return (
            f"{where} holds this run, trained to step {record['step']}. Pass {go_on}--overwrite true to begin anew, "
            "or another output_dir."
        )

    def _why_not_overwritten(
        self, where: str, holdings: list[str], record: dict | None, read: Sequence[str | None]
    ) -> str | None:
        is_ours = record is not None or (self.path / TRAINING_CONFIG).is_file()
        strangers = [name for name in holdings if not is_ours and defect(self.path / name) is not None]
        if strangers:
            return f"{where} holds {strangers[0]}, which no run of this package wrote. Pass another folder."
        for name in read:
            if name and Path(name).exists() and self.holds(name):
                return f"{where} holds the model {name!r}, which is read and would be removed. Pass another folder."
        return None

    def _holdings(self) -> list[str]:
        """What is worth keeping of a run: models, reports, and checkpoints; cut-off ones if the run is not known."""
        names = (*MODELS, *REPORTS, TRAINING_CONFIG)
        holdings = [name for name in names if (self.path / name).is_file()]
        known = self._read() is not None
        holdings += [path.name for path in steps(self.path).values() if not known or defect(path) is None]
        return holdings

    def _differing(self, record: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        there, now = record["settings"], json.loads(json.dumps(self.settings, default=str))
        config = {name: now["config"].get(name) for name in there["config"]}  # other versions have other options
        return differences(there, {**now, "config": config})

    # ---- What is written and removed ----

    def _read(self) -> dict | None:
        try:
            record = json.loads((self.path / RUN).read_text(encoding="utf-8"))
            return record if {"settings", "state", "step"} <= set(record) else None
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, state: str, step: int) -> None:
        record = {"state": state, "step": step, "checkpoint": self._newest(), "settings": self.settings}
        write_whole(self.path / RUN, json.dumps(record, indent=1, default=str) + "\n")

    def _clear(self) -> None:
        """Removes what a run of this package writes, and nothing else."""
        for path in steps(self.path).values():
            shutil.rmtree(path)
        for name in (*MODELS, *BESIDE_MODELS, RUN):
            (self.path / name).unlink(missing_ok=True)
        for path in self.path.glob("model-*-of-*.safetensors"):
            path.unlink()

    def _remove_verdicts(self) -> None:
        for path in self.path.glob("verdicts_*.jsonl*"):
            path.unlink()

    def _forget_results(self) -> None:
        """Removes what was said or made of weights that were trained before."""
        for name in (*REPORTS, *PICTURES):
            (self.path / name).unlink(missing_ok=True)
        if _is_card(self.path / "README.md"):
            (self.path / "README.md").unlink()
        for name in ("merged", ".eval_results"):
            shutil.rmtree(self.path / name, ignore_errors=True)


def _is_card(file: Path) -> bool:
    """Whether a file is a card of this package, and no notes of the user's."""
    try:
        return "hf-pmgaft" in (metadata_load(file) or {}).get("tags", ())
    except (OSError, ValueError):
        return False


# ---- Processes ----

_held: dict[Path, list[Any]] = {}  # locked files of this process, and how often each is


def _is_first() -> bool:
    return process_share()[0] == 0


def _raise_everywhere(reason: str | None) -> None:
    """Raises on all processes what the first one found."""
    reason = gather([reason])[0]
    if reason is not None:
        raise ValueError(reason)


def _lock(path: Path) -> tuple[Any, str | None]:
    """Locks a file: the file, or `None` where there are no locks, and why another process keeps it.

    It is a lock of the process (POSIX), which ends with it, whatever ends it, and which its workers do not inherit.
    """
    path = path.resolve()
    if path in _held:
        _held[path][1] += 1
        return _held[path][0], None
    if fcntl is None:
        return None, None

    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        user = file.read().strip()
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return None, (
                f"You passed output_dir={str(path.parent)!r}, which another run is using ({user or 'unknown'}). Wait "
                "for its end, or pass another folder."
            )
        logger.warning("%s cannot be locked (%s): see to it that no other run uses it.", path.parent, error.strerror)
        return None, None

    if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        file.close()  # its user has just ended and removed it
        return _lock(path)
    file.truncate(0)
    with contextlib.suppress(OSError):  # on a full disk it is a lock all the same
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held[path] = [file, 1]
    return file, None


def _unlock(path: Path) -> None:
    path = path.resolve()
    _held[path][1] -= 1
    if not _held[path][1]:
        file, _ = _held.pop(path)
        path.unlink(missing_ok=True)  # while it is locked, so that nobody locks a file without a name
        file.close()
