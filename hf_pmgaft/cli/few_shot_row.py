"""One row of a few-shot grid: trains what it names and measures it, or goes on where that was stopped."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

import yaml
from accelerate import PartialState

from ..embedded import emoji_folder
from ..few_shots.row import CLASSES, Row, Test
from ..files import write_whole
from ..models.record import model_record
from ..prompts import names_from
from ..training.checkpoints import defect, steps
from ..training.run_folder import FINISHED
from ..tuning.saved import load_pair
from . import train
from .train_setup import parse_rows


def run_row(row: Row) -> None:
    """Trains and measures a row. What is done of it is not done again, and a training goes on from its checkpoint."""
    if not row.is_trained():
        train_row(row)
    if not row.is_done():
        measure_row(row)


def train_row(row: Row) -> None:
    """Trains a row by `pmgaft train`, whose options lie in its folder for whoever wants to repeat it."""
    config = row.folder / "run.yaml"
    options = yaml.safe_dump(dict(row.options), sort_keys=False)
    is_as_before = config.exists() and config.read_text(encoding="utf-8") == options
    write_whole(config, options)
    if row.classes is not None:
        write_whole(row.folder / CLASSES, "\n".join(row.classes) + "\n")
    is_begun = any(defect(path) is None for path in steps(row.folder).values())
    how = "--resume_from_checkpoint" if is_begun and is_as_before else "--overwrite"

    start, busy = time.monotonic(), time.process_time()
    trainer, *_ = train.set_up(["--config", str(config), how, "true"])
    row.forget()
    trainer.folder.begin(trainer.args.resume_from_checkpoint, trainer.args.overwrite)
    trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    if trainer.interrupted:
        sys.exit(1)
    trainer.save_model(_internal_call=True)
    trainer.folder.note(FINISHED, trainer.state.global_step)

    figures = {
        "images": len(trainer.train_dataset),
        "steps": trainer.state.global_step,
        "parameters": sum(each.numel() for each in trainer.model.parameters() if each.requires_grad),
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - busy, 1),
    }
    row.note_trained(figures)
    for checkpoint in steps(row.folder).values():
        shutil.rmtree(checkpoint)


def measure_row(row: Row) -> None:
    """Measures what a row trained on each of its tests, and writes the report."""
    from ..evaluation.evaluate import evaluate_robustness

    start, busy = time.monotonic(), time.process_time()
    name = str(row.folder) if row.options else row.model or str(emoji_folder() / "model")
    model, processor = load_pair(name)
    sets = [load_test(test, processor) for test in row.tests]
    verdicts = row.folder / f"verdicts_{row.protocol}.jsonl"
    report = evaluate_robustness(
        model.to(PartialState().device),
        processor,
        sets,
        row.evaluation["attacks"],
        max_samples=row.evaluation["max_samples"],
        seed=row.evaluation["seed"],
        verdict_file=verdicts,
        progress=False,
    )
    report.provenance["model"] = model_record(model, name)
    report.provenance["few_shots"] = {
        "evaluation": row.measured_by(),
        "seconds": round(time.monotonic() - start, 1),
        "cpu_seconds": round(time.process_time() - busy, 1),
    }
    report.save(row.report_file)
    for path in verdicts.parent.glob(f"{verdicts.name}*"):
        path.unlink()


def load_test(test: Test, processor: Any) -> Any:
    """The images that a row is measured on: rows of a set, or of a half of its classes.

    Raises:
        ValueError: for a set that cannot be measured on.
    """
    from ..data.subsets import keep_classes, keep_rows, split_classes
    from ..suites.sets import load_set

    entry, options = test.entry, test.entry.options
    class_names = options.get("class_names")
    data = load_set(
        entry.test,
        processor,
        class_names=None if class_names is None else names_from(class_names),
        prompt_templates=options.get("prompt_template"),
        image_column=options.get("image_column"),
        label_column=options.get("label_column"),
    )
    if entry.test_rows is not None:
        data = keep_rows(data, *parse_rows(entry.test_rows))
    if test.half is not None:
        base, new = split_classes(data.class_names, entry.base, entry.new)
        data = keep_classes(data, base if test.half == "base" else new)
    data.name = test.name
    return data
