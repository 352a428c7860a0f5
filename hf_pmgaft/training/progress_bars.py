"""Trainer's progress bar with clean and robust accuracy so far: in a terminal, in a notebook, and in a log file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from transformers import ProgressCallback, Trainer, TrainerCallback

from ..progress import LOG_INTERVAL, is_drawn_over

# What the newest evaluation found comes before what the training batches since the last log line say.
ACCURACIES = {
    "evaluated": ("eval_mean_clean_accuracy", "eval_mean_robust_accuracy"),
    "batches": ("clean_accuracy", "adversarial_accuracy"),
}


class ShowsTracker(Protocol):
    """Trainer's callback of notebooks, which can be imported there alone."""

    training_tracker: Any


def show_accuracies(trainer: Trainer) -> None:
    """Puts clean and robust accuracy into the bar that a trainer shows, if it shows one.

    Example:
        >>> from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotDataset
        >>> args = PMGAFTConfig(output_dir="clip", use_cpu=True, report_to="none")
        >>> trainer = PMGAFTTrainer(model, args, train_dataset=dataset, processing_class=processor)
        >>> trainer.pop_callback(ProgressWithAccuracies) is not None
        True
    """
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(ProgressWithAccuracies)
        return
    for callback in trainer.callback_handler.callbacks:
        if hasattr(callback, "training_tracker"):
            trainer.add_callback(AccuraciesInNotebook(callback))
            return


def accuracies(logs: Mapping[str, Any]) -> str:
    """Clean and robust accuracy of a log line, in words; nothing if it has none.

    Example:
        >>> accuracies({"loss": 2.1, "clean_accuracy": 0.8125, "adversarial_accuracy": 0.4})
        'batches: clean 81.2%, robust 40.0%'
    """
    for source, keys in ACCURACIES.items():
        parts = [f"{kind} {logs[key]:.1%}" for kind, key in zip(("clean", "robust"), keys, strict=True) if key in logs]
        if parts:
            return f"{source}: {', '.join(parts)}"
    return ""


class ProgressWithAccuracies(ProgressCallback):
    """Trainer's bar with clean and robust accuracy so far. A log file gets a line every 30 seconds."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None and not is_drawn_over():
            self.training_bar.mininterval = self.training_bar.maxinterval = LOG_INTERVAL
            self.training_bar.write = print  # tqdm's own draws the bar again at every line

    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, logs=logs, **kwargs)
        text = accuracies(logs or {})
        if text and self.training_bar is not None:
            self.training_bar.set_postfix_str(text, refresh=is_drawn_over())


class AccuraciesInNotebook(TrainerCallback):
    """Writes clean and robust accuracy so far before the bar that Trainer shows in a notebook.

    Args:
        shown (`ShowsTracker`): Trainer's callback, whose bar it is.
    """

    def __init__(self, shown: ShowsTracker):
        self.shown = shown

    def on_log(self, args, state, control, logs=None, **kwargs):
        text = accuracies(logs or {})
        if text and self.shown.training_tracker is not None:
            self.shown.training_tracker.prefix = f"{text} "
