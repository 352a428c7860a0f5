"""SIGTERM and Ctrl-C end training after the running step with a checkpoint; a second one at once."""

import signal

import pytest
from support.trainers import digest, make_trainer
from transformers import TrainerCallback

from hf_pmgaft import signals
from hf_pmgaft.training import checkpoints


class Raise(TrainerCallback):
    """Sends signals to this process at the beginning of the second step."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            for number in self.numbers:
                signal.raise_signal(number)


def test_ctrl_c_saves_after_the_step_and_stops_what_follows(tmp_path, capfd):
    handler = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tmp_path, max_steps=4, callbacks=[Raise(signal.SIGINT)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.interrupted and trainer.stopped_by == signal.SIGINT and trainer.state.global_step == 2
    assert checkpoints.defect(tmp_path / "checkpoint-2") is None and signal.getsignal(signal.SIGINT) == handler
    assert "Stopping after this step" in capfd.readouterr().err

    resumed = make_trainer(tmp_path, max_steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4 and not resumed.interrupted


def test_a_second_signal_ends_at_once_but_not_one_that_a_launcher_passes_on(tmp_path, monkeypatch):
    twice = [Raise(signal.SIGINT, signal.SIGINT)]
    passed_on = make_trainer(tmp_path / "a", max_steps=4, callbacks=twice)
    with pytest.raises(KeyboardInterrupt):
        passed_on.train()
    assert passed_on.state.global_step == 2

    monkeypatch.setattr(signals, "PASSED_ON_WITHIN", -1.0)
    at_once = make_trainer(tmp_path / "b", max_steps=4, callbacks=twice)
    with pytest.raises(KeyboardInterrupt):
        at_once.train()
    assert at_once.state.global_step == 1 and not at_once.interrupted
    assert not list((tmp_path / "b").glob("checkpoint-*"))


def test_a_second_signal_while_the_checkpoint_is_written_leaves_none_that_is_taken_for_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "PASSED_ON_WITHIN", -1.0)
    saves = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path, callbacks=[Raise(signal.SIGINT)], **saves)
    save = trainer.save_weights

    def save_and_stop(model, folder):
        save(model, folder)
        if folder.name == "checkpoint-2":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer, "save_weights", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert (tmp_path / "checkpoint-2" / "model.safetensors").exists()
    assert checkpoints.newest_complete(tmp_path)[0] == str(tmp_path / "checkpoint-1")
    assert trainer.folder.how_to_go_on().endswith("goes on from checkpoint-1.")

    resumed = make_trainer(tmp_path, **saves)
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer(tmp_path / "whole", **saves)
    whole.train()
    assert digest(resumed) == digest(whole)
