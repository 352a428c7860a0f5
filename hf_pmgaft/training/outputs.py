"""What a trainer writes beside its checkpoints: reports, pictures, and models that serve without this package."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainingArguments

from ..evaluation.report import RobustnessReport
from ..files import writing_into
from ..hub.upload import PICTURES
from ..plots.reports import training_curves
from ..tuning.base import attachment_of
from ..zero_shot.text import export_class_embeds
from .texts import Texts

logger = logging.getLogger(__name__)


def name_run(args: TrainingArguments) -> None:
    """Names the run for its trackers, if nobody did. An evaluation after training goes on with the run by its name,
    which trackio has ended by then."""
    folder = Path(args.output_dir).resolve().name
    args.run_name = args.run_name or f"{folder}-{time.strftime('%Y%m%d-%H%M%S')}"


def write_reports(
    folder: Path,
    before: RobustnessReport | None,
    after: RobustnessReport | None,
    log_history: Sequence[Mapping[str, Any]],
    final: RobustnessReport | None = None,
) -> None:
    """Writes `robustness.json`, `robustness_before.json`, `robustness_final.json`, `gallery.png` and
    `training_curves.png`, as far as there is something to write."""
    folder.mkdir(parents=True, exist_ok=True)
    if after is not None:
        after.save(folder / "robustness.json")
        if after.picture is not None:
            with writing_into(folder):
                (folder / "gallery.png").write_bytes(after.picture)
    if before is not None and before is not after:
        before.save(folder / "robustness_before.json")
    if final is not None:
        final.save(folder / "robustness_final.json")
    if log_history:
        training_curves(log_history, folder / "training_curves.png")


def drawn_pictures(folder: Path, was_evaluated: bool) -> list[str]:
    """The pictures that a run has drawn into its folder; without an evaluation, none that an earlier run left."""
    names = PICTURES if was_evaluated else ("training_curves.png",)
    return [name for name in names if (folder / name).is_file()]


def save_class_embeds(model: nn.Module, texts: Texts, folder: Path) -> None:
    """Writes the text embeddings of the training classes, `class_embeds.safetensors`."""
    export_class_embeds(
        model,
        texts.processor,
        texts.class_names,
        folder / "class_embeds.safetensors",
        texts.prompt_templates,
        accept_any_class_names=True,  # or refused when the trainer was made
    )


def check_merges(model: nn.Module) -> None:
    """Raises `ValueError` if what was trained beside a model's weights cannot become part of them."""
    attached = attachment_of(model)
    if attached is not None and not attached.folds:
        attached.fold(model)


def merges(model: nn.Module) -> bool:
    """Whether what was trained beside a model's weights can become part of them."""
    attached = attachment_of(model)
    return attached is None or attached.folds


def warn_of_local_base(base_name: str | None) -> None:
    """Warns of an adapter whose base model is a folder of this machine."""
    if base_name and Path(base_name).is_dir():
        logger.warning(
            "What is pushed loads beside its base model, a folder of this machine (%s). Push the base model too "
            "and train from its Hub name, or push the merged model (`merged=True`, --push_merged).",
            base_name,
        )
