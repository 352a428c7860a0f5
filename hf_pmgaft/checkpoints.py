"""A checkpoint is complete or ignored: its last file lists all others with their sizes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

MANIFEST = "complete.json"


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
        json.dump({"files": sizes, "fingerprint": fingerprint}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / MANIFEST)


def defect(folder: str | os.PathLike) -> str | None:
    """Why a checkpoint is not complete, or `None` if it is."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"it has no readable {MANIFEST}, so it was cut off while it was written"
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


def newest_complete(output_dir: str | os.PathLike) -> tuple[str, list[str]]:
    """The newest complete checkpoint of a run, and what was skipped and why.

    Raises:
        ValueError: if there is none.
    """
    steps = {}
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if path.is_dir() and step.isdigit():
            steps[int(step)] = path
    skipped = []
    for _, path in sorted(steps.items(), reverse=True):
        reason = defect(path)
        if reason is None:
            return str(path), skipped
        skipped.append(f"{path.name}: {reason}")
    raise ValueError(
        f"There is no complete checkpoint to resume from in {str(output_dir)!r}"
        + (f" (skipped {'; '.join(skipped)})" if skipped else "")
        + ". Start without resume_from_checkpoint, or pass the right output_dir."
    )


def check_fingerprint(folder: str | os.PathLike, fingerprint: dict) -> None:
    """Raises `ValueError`, naming the keys that differ, if a checkpoint was made by another kind of run."""
    saved = (read_manifest(folder) or {}).get("fingerprint", {})
    differing = [
        f"{key}: {saved.get(key)!r} there, {fingerprint.get(key)!r} now"
        for key in sorted(set(saved) | set(fingerprint))
        if saved.get(key) != fingerprint.get(key)
    ]
    if differing:
        raise ValueError(
            f"Checkpoint {str(folder)!r} was made by a run with other settings, so going on from it would mix two "
            f"runs. They differ in:\n  " + "\n  ".join(differing) + "\nUse the same settings or another output_dir."
        )
