"""A checkpoint is complete or ignored: its last file lists all others with their sizes; SIGTERM makes one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import datasets
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..distributed import any_process
from ..fingerprints import differences, digest

MANIFEST = "complete.json"
FORMAT = 2  # of the manifest: what fingerprints are made of


def seal(folder: str | os.PathLike, fingerprint: dict) -> None:
    """Writes the manifest that makes a checkpoint complete; every other file must be there already."""
    folder = Path(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    partial = folder / f"{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "files": sizes, "fingerprint": fingerprint}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / MANIFEST)


def defect(folder: str | os.PathLike) -> str | None:
    """Why a checkpoint is not complete, or `None` if it is."""
    if not Path(folder).is_dir():
        return "there is no such folder"
    manifest = read_manifest(folder)
    if manifest is None:
        return f"it has no readable {MANIFEST}, so it was cut off while it was written, or by another trainer"
    for name, size in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def read_manifest(folder: str | os.PathLike) -> dict | None:
    """The manifest of a checkpoint, or `None` if there is none that can be read."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
        return manifest if {"files", "fingerprint"} <= set(manifest) else None
    except (OSError, ValueError, TypeError):
        return None


def steps(output_dir: str | os.PathLike) -> dict[int, Path]:
    """The checkpoint folders of a run by their step, complete or not, newest first."""
    found = {}
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if path.is_dir() and step.isdigit():
            found[int(step)] = path
    return dict(sorted(found.items(), reverse=True))


def newest_complete(output_dir: str | os.PathLike) -> tuple[str, list[str]]:
    """The newest complete checkpoint of a run, and what was skipped and why.

    Raises:
        ValueError: if there is none.
    """
    skipped = []
    for path in steps(output_dir).values():
        reason = defect(path)
        if reason is None:
            return str(path), skipped
        skipped.append(f"{path.name}: {reason}")
    raise ValueError(
        f"There is no complete checkpoint to resume from in {str(output_dir)!r}"
        + (f" (skipped {'; '.join(skipped)})" if skipped else "")
        + ". Start without resume_from_checkpoint, or pass the right output_dir."
    )


def rotate(output_dir: str | os.PathLike, limit: int | None, keep: Collection[Path]) -> None:
    """Removes checkpoints until `limit` are left: those cut off first, then the oldest, and never one of `keep`.

    Trainer's own rotation takes any folder for a checkpoint, and where modification times are equal keeps the highest
    step, which may be one that was cut off.
    """
    if not limit or limit < 0:
        return
    keep = {path.resolve() for path in keep}
    others = [path for path in reversed(steps(output_dir).values()) if path.resolve() not in keep]
    others.sort(key=lambda path: (defect(path) is None, path.stat().st_mtime))
    for path in others[: max(0, len(others) + len(keep) - limit)]:
        shutil.rmtree(path, ignore_errors=True)


class StopOnSigterm(TrainerCallback):
    """On SIGTERM, ends training with a checkpoint after the running step, on all processes after the same one.

    Trainer's own callback waits on each process for itself, so that they would stop at different steps, saves in the
    middle of a step, where dropout has drawn its numbers, and swallows the signal outside of training.
    """

    def __init__(self):
        self.received = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Catches the signal; only the main thread can."""
        self.received = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._receive)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step_end(self, args, state, control, **kwargs):
        self.received = any_process(self.received)
        if self.received:
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True

    def _receive(self, *_):
        self.received = True


def data_fingerprint(dataset: Any) -> dict[str, Any]:
    """Length of a training set and, where they can be read without decoding, checksums of labels and some images.

    The `_fingerprint` of `datasets` will not do: it changes with the cache's dates.
    """
    found: dict[str, Any] = {"samples": len(dataset) if hasattr(dataset, "__len__") else None}
    rows, captions = getattr(dataset, "dataset", None), getattr(dataset, "captions", None)
    if not isinstance(rows, datasets.Dataset):
        return found
    rows = rows.with_format(None)
    texts = {"labels": [getattr(dataset, "label_column", "labels")]}
    texts["captions"] = [] if captions is None else [path[0] for path in captions.paths.values()]
    for kind, columns in texts.items():
        columns = [column for column in columns if column in rows.column_names]
        if columns:
            found[kind] = digest(repr(list(rows.select_columns(name)[name])).encode() for name in columns)
    if hasattr(dataset, "image_column"):
        few = rows.select(range(0, len(rows), len(rows) // 16 or 1))[dataset.image_column]
        found["images"] = digest(image["bytes"] or b"" for image in few if isinstance(image, dict))
    return found


def other_run(folder: str | os.PathLike, fingerprint: dict) -> str | None:
    """Why a checkpoint is of another kind of run, naming the keys that differ, or `None` if it is not."""
    manifest = read_manifest(folder) or {"fingerprint": {}}
    if manifest.get("format") != FORMAT:
        return (
            f"Checkpoint {str(folder)!r} was written in another format ({manifest.get('format', 1)}, not {FORMAT}), "
            'whose fingerprints of models are not those of today (CHANGELOG.md, "Format of checkpoints"). Its '
            "weights can be loaded; resume it with the version that wrote it, or train anew from them."
        )
    differing = [
        f"{key}: {there!r} there, {now!r} now"
        for key, (there, now) in differences(manifest["fingerprint"], fingerprint).items()
    ]
    if not differing:
        return None
    return (
        f"Checkpoint {str(folder)!r} was made by a run with other settings, so going on from it would mix two runs. "
        "They differ in:\n  " + "\n  ".join(differing) + "\nUse the same settings or another output_dir."
    )
