"""Trackers and callbacks get the named terms, robust accuracy and pictures, as with any `Trainer`."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny import make_images
from support.trainers import make_trainer
from transformers import CLIPModel, TrainerCallback

from hf_pmgaft.training.sample_pictures import SamplePictures

TERMS = {"adversarial_ce", "teacher_kl", "clean_kl"}
TOKEN = "hf_thisisasecret"
QUICK = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "hub_token": TOKEN}


class Recorder(TrainerCallback):
    """Keeps what each event brings."""

    def __init__(self):
        self.logs, self.metrics, self.saved, self.kwargs = [], [], [], {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.metrics.append((state.global_step, dict(metrics)))
        self.kwargs = kwargs

    def on_save(self, args, state, control, **kwargs):
        self.saved.append(state.global_step)


def robust_accuracies(trainer) -> dict[int, float]:
    """By step, as the trainer logged them."""
    key = "eval_mean_robust_accuracy"
    return {line["step"]: line[key] for line in trainer.state.log_history if key in line}


def assert_no_token(folder: Path) -> None:
    """Trackers keep the whole configuration."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files and not any(TOKEN.encode() in path.read_bytes() for path in files)


def test_callbacks_see_what_they_expect(tmp_path):
    seen = Recorder()
    trainer = make_trainer(
        tmp_path, eval_dataset=make_images(8), callbacks=[seen], save_strategy="steps", save_steps=2, **QUICK
    )
    trainer.train()
    lines = [(step, logs) for step, logs in seen.logs if "loss" in logs]
    assert [step for step, _ in lines] == [1, 2]
    for _, logs in lines:
        assert {"loss", "learning_rate", "grad_norm", "adversarial_accuracy", *TERMS} <= set(logs)
        assert all(isinstance(value, (int, float)) for value in logs.values())
    assert [step for step, _ in seen.metrics] == [1, 2] and seen.saved == [2]
    for step, metrics in seen.metrics:
        assert {"eval_set_robust_accuracy", "eval_mean_robust_accuracy", "eval_runtime"} <= set(metrics)
        assert (step, metrics["eval_mean_robust_accuracy"]) in [
            (step, logs.get("eval_mean_robust_accuracy")) for step, logs in seen.logs
        ]
    assert isinstance(seen.kwargs["model"], CLIPModel)
    assert {"processing_class", "optimizer", "lr_scheduler"} <= set(seen.kwargs)


def test_a_callback_can_stop_the_run(tmp_path):
    class Stop(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            control.should_training_stop = True

    trainer = make_trainer(tmp_path, eval_dataset=make_images(8), callbacks=[Stop()], **QUICK)
    trainer.train()
    assert trainer.state.global_step == 1


def test_pictures_are_of_the_evaluation_set_and_in_the_report(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset=make_images(8))
    trainer.evaluate()
    assert trainer.last_report.picture is None
    pictures = SamplePictures(trainer, count=3)
    trainer.add_callback(pictures)
    trainer.evaluate()
    data = trainer.eval_dataset["set"]
    assert len(pictures.rows) == 3 and pictures.labels == [data[row]["labels"] for row in pictures.rows]
    moved = (pictures.adversarial - pictures.clean).abs().amax((1, 2, 3))
    assert (moved > 0).all() and (moved <= 8 / 255 + 1e-6).all()
    verdicts = trainer.last_report.sets[0].verdicts
    stands = [verdicts["robust"][verdicts["sample_id"].index(row)] for row in pictures.rows]
    right = [int(p == label) for p, label in zip(pictures.predictions["model"], pictures.labels, strict=True)]
    assert all(kept <= found for kept, found in zip(stands, right, strict=True))
    assert min(Image.open(io.BytesIO(trainer.last_report.picture)).size) > 100


def test_without_a_tracker_no_picture_is_made(tmp_path):
    kinds = {type(c) for c in make_trainer(tmp_path, eval_dataset=make_images(8)).callback_handler.callbacks}
    assert SamplePictures not in kinds


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    trainer = make_trainer(tmp_path, eval_dataset=make_images(8), report_to="tensorboard", **QUICK)
    trainer.train()
    events = EventAccumulator(str(tmp_path / "runs")).Reload()
    assert {f"train/{term}" for term in TERMS} <= set(events.Tags()["scalars"])
    robust = {event.step: event.value for event in events.Scalars("eval/mean_robust_accuracy")}
    assert robust == pytest.approx(robust_accuracies(trainer)) and list(robust) == [1, 2]
    assert [event.step for event in events.Images("eval/samples")] == [1, 2]
    picture = Image.open(io.BytesIO(events.Images("eval/samples")[-1].encoded_image_string))
    assert np.ptp(np.asarray(picture)) > 100
    assert_no_token(tmp_path)


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    trainer = make_trainer(
        tmp_path, eval_dataset=make_images(8), report_to="trackio", project="robust", **{**QUICK, "eval_steps": 2}
    )
    trainer.train()
    trainer.evaluate()  # after the end of training, and still of the same run
    (run,) = SQLiteStorage.get_runs("robust")
    trackio.finish()
    rows = SQLiteStorage.get_logs("robust", run)
    assert {f"train/{term}" for term in TERMS} <= {name for row in rows for name in row}
    key = "eval/mean_robust_accuracy"
    assert {row["train/global_step"]: row[key] for row in rows if key in row} == robust_accuracies(trainer)
    assert [row["train/global_step"] for row in rows if "eval/samples" in row] == [2, 2]
    assert len(list(tmp_path.rglob("media/**/*.png"))) == 2
    assert_no_token(tmp_path)


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    trainer = make_trainer(tmp_path, eval_dataset=make_images(8), report_to="wandb", **QUICK)
    trainer.train()
    summary = dict(wandb.run.summary)
    wandb.finish()
    assert {"eval/mean_robust_accuracy", "eval/samples", *(f"train/{term}" for term in TERMS)} <= set(summary)
    assert len(list(tmp_path.rglob("media/images/**/*.png"))) == 2
    assert_no_token(tmp_path)
