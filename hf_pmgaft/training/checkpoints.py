"""A checkpoint is complete or ignored: its last file lists all others with their sizes."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..config import PMGAFTConfig
from ..distributed import gather
from ..fingerprints import differences, digest, digest_of_list
from ..objectives import Objective
from ..tuning import Tuning, name_of, options_of
from ..tuning.saved import TRAINING_CONFIG
from .streams import stream_fingerprint
from .texts import Texts

logger = logging.getLogger(__name__)

MANIFEST = "complete.json"
# What peft sets or changes by itself.
UNCHECKED_ADAPTER_KEYS = ("base_model_name_or_path", "inference_mode", "peft_version")
FORMAT = 2  # of the manifest: what fingerprints are made of


# ---- Complete or ignored ----


def seal(folder: str | os.PathLike, fingerprint: dict) -> None:
    """Writes the manifest that makes a checkpoint complete; every other file must be there already."""
    folder = Path(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())

    # Under its name only once it is whole
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


def has_foreign_state(folder: Path) -> bool:
    """Whether a checkpoint was written by another trainer, of which each has a pickle of its arguments."""
    return (folder / "training_args.bin").is_file()


def read_manifest(folder: str | os.PathLike) -> dict | None:
    """The manifest of a checkpoint, or `None` if there is none that can be read."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
        return manifest if {"files", "fingerprint"} <= set(manifest) else None
    except (OSError, ValueError, TypeError):
        return None


# ---- Those of a run ----


def steps(output_dir: str | os.PathLike) -> dict[int, Path]:
    """The checkpoint folders of a run by their step, complete or not, newest first.

    Example:
        >>> for step in (5, 10):
        ...     Path(f"run/checkpoint-{step}").mkdir(parents=True)
        >>> list(steps("run"))
        [10, 5]
    """
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


def parse_resume(asked_for: str | os.PathLike | bool | None) -> str | os.PathLike | bool | None:
    """`True`, `None`, or a checkpoint's folder, from what a command line or a script passes.

    Raises:
        ValueError: for what is none of them.

    Example:
        >>> parse_resume("True"), parse_resume("no"), parse_resume("run/checkpoint-500")
        (True, None, 'run/checkpoint-500')
    """
    word = str(asked_for).strip().lower()
    if asked_for is None or word in ("false", "no", "none", ""):
        return None
    if word in ("true", "yes"):
        return True
    if not isinstance(asked_for, (str, os.PathLike)):
        raise ValueError(
            f"You passed resume_from_checkpoint={asked_for!r}, which names no checkpoint. Pass true for the newest "
            "one of output_dir, or a checkpoint's folder, such as output_dir/checkpoint-500."
        )
    return asked_for


def check_complete(folder: str | os.PathLike) -> None:
    """Raises `ValueError` if a folder is no complete checkpoint."""
    reason = defect(folder)
    if reason is not None:
        raise ValueError(
            f"Checkpoint {str(folder)!r} cannot be resumed from: {reason}. Pass a complete one, or "
            "resume_from_checkpoint=True for the newest of them."
        )


def to_resume(asked_for: str | os.PathLike | bool | None, output_dir: str, fingerprint: dict) -> Path | None:
    """The checkpoint to go on from: the one that was asked for, or with `True` the newest complete one of the run.

    All processes must ask together.

    Raises:
        ValueError: if there is none, it is incomplete, or of another kind of run on whatever process.
    """
    if not asked_for:
        return None
    folder = asked_for
    if asked_for is True:
        folder, skipped = newest_complete(output_dir)
        for reason in skipped:
            logger.warning("Skipped an incomplete checkpoint: %s", reason)

    check_complete(folder)
    if _has_only_the_model(Path(folder)):
        raise ValueError(
            f"Checkpoint {str(folder)!r} was saved with save_only_model=True, without the optimizer and the schedule "
            "that a run goes on with. Start a new run with it as the model, and leave save_only_model out."
        )

    # Those beside it are of the same run, too, or its rotation would remove another's.
    beside = [path for path in steps(output_dir).values() if defect(path) is None]
    differing = [reason for path in (folder, *beside) if (reason := other_run(path, fingerprint)) is not None]
    reasons = [reason for reason in gather(differing[:1]) if reason is not None]
    if reasons:
        raise ValueError(reasons[0])
    return Path(folder)


def _has_only_the_model(folder: Path) -> bool:
    config = folder / TRAINING_CONFIG
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("save_only_model"))


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


# ---- Which run one is of ----


def data_fingerprint(dataset: Any) -> dict[str, Any]:
    """Length of a training set and, where they can be read without decoding, digests of its texts and some images.

    The `_fingerprint` of `datasets` will not do: it changes with the cache's dates.
    """
    entries: dict[str, Any] = {"samples": len(dataset) if hasattr(dataset, "__len__") else None}
    if getattr(dataset, "resize", None) is not None:
        entries["resize"] = dataset.resize
    table = getattr(dataset, "dataset", None)
    if not isinstance(table, datasets.Dataset):
        return entries
    table = table.with_format(None)

    # Labels and captions, column by column
    captions = getattr(dataset, "captions", None)
    columns_of = {
        "labels": [getattr(dataset, "label_column", "labels")],
        "captions": [] if captions is None else [path[0] for path in captions.paths.values()],
    }
    for kind, columns in columns_of.items():
        columns = [column for column in columns if column in table.column_names]
        if columns:
            entries[kind] = digest(repr(list(table.select_columns(name)[name])).encode() for name in columns)

    # Sixteen images or so, as files hold them
    if hasattr(dataset, "image_column"):
        every = len(table) // 16 or 1
        images = table.select(range(0, len(table), every))[dataset.image_column]
        entries["images"] = digest(image["bytes"] or b"" for image in images if isinstance(image, dict))
    return entries


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


def run_fingerprint(
    args: PMGAFTConfig, objective: Objective, tuning: Tuning, texts: Texts, model: nn.Module, dataset: Any
) -> dict[str, Any]:
    """What a run must share with another for one to resume the other's checkpoints, but for weights and engine.

    Args:
        model: Prepared for the tuning, with parameters of their whole shapes.
        dataset: What is trained on.
    """
    adapters = {
        name: {key: value for key, value in config.to_dict().items() if key not in UNCHECKED_ADAPTER_KEYS}
        for name, config in getattr(model, "peft_config", {}).items()
    }
    return {
        "objective": type(objective).__name__,
        "objective_options": vars(objective),
        "attack": args.attack,
        "attack_options": args.attack_options(),
        "attack_precision": args.attack_precision,
        "augmentation": args.augmentation,
        **({} if args.noise_sigma is None else {"noise_sigma": str(args.noise_sigma)}),
        "adapters": adapters,
        "tuning": name_of(tuning),
        "tuning_options": {} if adapters else options_of(tuning),
        "ema_decay": args.ema_decay,
        "class_names": digest_of_list(texts.class_names or ()),
        "guidance_names": None if texts.guidance_names is None else digest_of_list(texts.guidance_names),
        "prompt_templates": texts.prompt_templates,
        "train_dataset": data_fingerprint(dataset) | stream_fingerprint(dataset, args),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "seed": args.seed,
    }


def as_stored(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """A fingerprint as a manifest gives it back.

    Example:
        >>> as_stored({"names": {"b", "a"}, "size": (1, 2)})
        {'names': ['a', 'b'], 'size': [1, 2]}
    """

    def as_json(value: Any) -> Any:
        return sorted(value) if isinstance(value, set) else str(value)

    return json.loads(json.dumps(fingerprint, default=as_json))


def part_of(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries under a prefix, without it: `"average.weight"` of the part `"average"` is `"weight"`.

    Example:
        >>> part_of({"average.weight": torch.ones(1), "log_scale": torch.ones(1)}, "average")
        {'weight': tensor([1.])}
    """
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
