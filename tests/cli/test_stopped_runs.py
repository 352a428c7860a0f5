"""`pmgaft train`, stopped outside of training: the same command goes on, trains no step again, and ends the same."""

import contextlib
import json
import signal
import subprocess
import sys

import pytest
from huggingface_hub import HfApi
from support.disk import full_disk
from support.launch import environment
from support.stops import at_call, before_call
from support.tiny import make_images, make_model, make_processor

import hf_pmgaft.hub.upload
from hf_pmgaft.cli import train
from hf_pmgaft.evaluation.report import RobustnessReport
from hf_pmgaft.evaluation.verdicts import Verdicts
from hf_pmgaft.training import trainer as training
from hf_pmgaft.training.trainer import PMGAFTTrainer

SAME = ("model.safetensors", "robustness.json", "robustness_before.json", "robustness.png", "gallery.png")
# What is stopped: at its so manieth call, and whether that is after training.
PHASES = {
    "evaluation before": (Verdicts, "add", 3, False),
    "evaluation after": (Verdicts, "add", 8, True),
    "report": (RobustnessReport, "save", 1, True),
    "report of before": (RobustnessReport, "save", 2, True),
    "table": (train, "comparison_table", 1, True),
    "card": (training, "save_model_card", 1, True),
}
QUICK = {("evaluation before", signal.SIGTERM), ("report", signal.SIGINT)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    make_model().save_pretrained(folder / "model")
    make_processor().save_pretrained(folder / "model")
    make_images(16).to_parquet(folder / "train.parquet")
    make_images(12, seed=9).to_parquet(folder / "test.parquet")
    return folder


@pytest.fixture
def command(inputs):
    def command(folder, *more: str) -> list[str]:
        options = {
            "model_name_or_path": inputs / "model",
            "dataset_name": inputs / "train.parquet",
            "eval_sets": inputs / "test.parquet",
            "output_dir": folder,
            "max_steps": 2,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 4,
            "learning_rate": 2e-3,
            "eps": "8/255",
            "eval_num_steps": 2,
            "use_cpu": "true",
            "disable_tqdm": "true",
            "report_to": "none",
        }
        return [word for name, value in options.items() for word in (f"--{name}", str(value))] + list(more)

    return command


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """The folder of a run that nothing stopped, made at its first use."""
    return tmp_path_factory.mktemp("whole") / "run"


def finish(line: list[str], monkeypatch, trains: bool = False) -> None:
    """Runs a command to its end, which must not train unless it may."""
    with monkeypatch.context() as patch:
        if not trains:
            patch.setattr(PMGAFTTrainer, "training_step", None)
        train.main(line)


def check_same(folder, whole, command) -> None:
    if not whole.exists():
        train.main(command(whole))
    for name in SAME:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    card = (folder / "README.md").read_text().replace(folder.name, whole.name)
    assert card == (whole / "README.md").read_text()
    assert not list(folder.glob("verdicts_*")) and json.loads((folder / "run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        pytest.param(phase, number, marks=() if (phase, number) in QUICK else pytest.mark.slow)
        for phase in PHASES
        for number in (signal.SIGINT, signal.SIGTERM)
    ],
)
def test_a_stopped_run_says_how_to_go_on_and_ends_the_same(
    command, whole, tmp_path, monkeypatch, capsys, phase, number
):
    owner, name, count, is_after = PHASES[phase]
    line = command(tmp_path / "stopped")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(owner, name, at_call(count, getattr(owner, name), number))
        train.main(line)
    assert ended.value.code == 128 + number and not (tmp_path / "stopped" / "run.lock").exists()
    said = capsys.readouterr().err.splitlines()[-1]
    if is_after:
        said, line = said.removesuffix(" from checkpoint-2."), [*line, "--resume_from_checkpoint", "true"]
        assert said.endswith("With --resume_from_checkpoint true, the same command goes on")
    else:
        assert said.endswith("The same command goes on.")

    finish(line, monkeypatch, trains=not is_after)
    check_same(tmp_path / "stopped", whole, command)


def test_an_evaluation_before_training_goes_on_with_what_was_judged(command, tmp_path, monkeypatch):
    line = command(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Verdicts, "add", at_call(3, Verdicts.add, signal.SIGTERM))
        train.main(line)
    kept = (tmp_path / "verdicts_before.jsonl").read_text()
    assert len(kept.splitlines()) == 3
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(PMGAFTTrainer, "train", at_call(1, PMGAFTTrainer.train, signal.SIGTERM))
        train.main(line)
    assert (tmp_path / "verdicts_before.jsonl").read_text().startswith(kept)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["evaluation after", "report", "card"])
def test_a_disk_that_fills_after_training_loses_nothing(command, whole, tmp_path, monkeypatch, phase):
    owner, name, count, _ = PHASES[phase]
    folder = tmp_path / "filled"
    with monkeypatch.context() as patch, contextlib.ExitStack() as disk:
        fill = before_call(count, getattr(owner, name), lambda: disk.enter_context(full_disk(room=100)))
        patch.setattr(owner, name, fill)
        with pytest.raises(SystemExit, match=f"^error: {folder} cannot be written to .* MB are free") as ended:
            train.main(command(folder))
    assert "\n" not in ended.value.code and not (folder / "run.lock").exists()
    finish(command(folder, "--resume_from_checkpoint", "true"), monkeypatch)
    check_same(folder, whole, command)


def before(function):
    return at_call(1, function, signal.SIGTERM)


def after(function):
    def stopping(*args, **kwargs):
        function(*args, **kwargs)
        signal.raise_signal(signal.SIGTERM)

    return stopping


# Before anything of a push is sent, and when the weights are there but not yet committed.
PUSH = {"before": (hf_pmgaft.hub.upload, "upload_folder", before), "half": (HfApi, "preupload_lfs_files", after)}


@pytest.mark.slow
@pytest.mark.parametrize("moment", PUSH)
def test_a_push_that_was_stopped_is_completed(hub, command, tmp_path, monkeypatch, moment):
    owner, name, stopping = PUSH[moment]
    line = [*command(tmp_path), "--push_to_hub", "true", "--hub_model_id", "user/clip", "--hub_strategy", "end"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(owner, name, stopping(getattr(owner, name)))
        train.main(line)
    assert ended.value.code == 143 and not hub.repos["user/clip"].files.keys() & set(SAME)
    finish([*line, "--resume_from_checkpoint", "true"], monkeypatch)
    for name in (*SAME, "README.md"):
        assert hub.repos["user/clip"].files[name] == (tmp_path / name).read_bytes()


KILLED = """
import os, signal, sys
from hf_pmgaft.cli import train
from hf_pmgaft.evaluation.report import RobustnessReport
from support.stops import before_call

kill = before_call(1, RobustnessReport.save, lambda: os.kill(os.getpid(), signal.SIGKILL))
RobustnessReport.save = kill
train.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_run_that_was_killed_after_its_evaluation_ends_the_same(command, whole, tmp_path, monkeypatch):
    line = command(tmp_path / "killed")
    done = subprocess.run([sys.executable, "-c", KILLED, *line], env=environment(), capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    finish([*line, "--resume_from_checkpoint", "true"], monkeypatch)
    check_same(tmp_path / "killed", whole, command)
