"""A folder is used by one run at a time, and never by two of different settings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.launch import environment
from support.tiny import make_images
from support.trainers import make_trainer, state

from hf_pmgaft.training.run_folder import FINISHED, TRAINED, RunFolder, settings_of

SAVES = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of two steps, with its checkpoint, model, reports, pictures and card."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = make_trainer(folder, eval_dataset=make_images(4), **SAVES)
    trainer.train()
    trainer.save_model()
    trainer.evaluate()
    trainer.save_reports()
    trainer.create_model_card()
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of it, beside a note of the user's."""
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "notes.md").write_text("mine")
    return tmp_path / "run"


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [{"eps": "4/255"}, {"learning_rate": 1e-3}, {"max_steps": 4}, {"seed": 1}, {}])
def test_a_folder_of_an_earlier_run_is_refused_and_left_alone(folder, options):
    before = files(folder)
    words = "differs in config" if options else "holds this run, trained to step 2"
    with pytest.raises(ValueError, match=f"{words}.*--resume_from_checkpoint true.*--overwrite true"):
        make_trainer(folder, **{**SAVES, **options}).train()
    assert files(folder) == before


def test_overwriting_removes_what_the_earlier_run_wrote_and_nothing_else(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "config.json").write_text("{}")
    (folder / "diagram.png").write_bytes(b"mine")
    make_trainer(folder, max_steps=1, overwrite=True).train()
    names = {path.name for path in folder.iterdir()}
    assert names == {"notes.md", ".git", "diagram.png", "run.json"} and (folder / ".git" / "config.json").exists()


def test_a_readme_of_the_users_is_no_card(folder):
    (folder / "README.md").write_text("# My notes on hf-pmgaft\n")
    make_trainer(folder, max_steps=1, overwrite=True).train()
    assert (folder / "README.md").read_text() == "# My notes on hf-pmgaft\n"


def test_one_trainer_may_train_again(tmp_path):
    trainer = make_trainer(tmp_path, **SAVES)
    trainer.save_model()
    trainer.train()
    trainer.save_model()
    trainer.train()
    assert (tmp_path / "checkpoint-2").is_dir()


def test_longer_training_goes_on_and_its_old_reports_go(folder):
    longer = make_trainer(folder, **{**SAVES, "max_steps": 4})
    longer.train(resume_from_checkpoint=True)
    assert longer.state.global_step == 4
    assert not list(folder.glob("robustness*")) and not (folder / "gallery.png").exists()
    longer.create_model_card()
    card = (folder / "README.md").read_text()
    assert "not evaluated" in card and "![" not in card


def test_a_run_resumed_at_its_end_changes_nothing(folder):
    before = files(folder)
    for name in ("run.json", "training_config.json"):  # which tell of this folder
        del before[Path(name)]
    again = make_trainer(folder, **SAVES)
    output = again.train(resume_from_checkpoint=True)
    assert output.global_step == 2 and "train_loss" not in output.metrics
    weights = state(again.model)
    again.save_model()
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert all(value.equal(weights[name]) for name, value in again.model.state_dict().items())


@pytest.mark.parametrize(("options", "steps"), [({"max_steps": 3}, 3), ({"max_steps": -1, "num_train_epochs": 1}, 4)])
def test_training_stops_where_it_ends_whichever_way_it_is_counted(tmp_path, options, steps):
    options = {**SAVES, **options, "save_steps": 1}
    make_trainer(tmp_path, **options).train()
    for checkpoint in (True, str(tmp_path / f"checkpoint-{steps}")):
        again = make_trainer(tmp_path, **options)
        again.train(resume_from_checkpoint=checkpoint)
        assert again.state.global_step == steps
    assert not (tmp_path / f"checkpoint-{steps + 1}").exists()


def test_a_checkpoint_beyond_the_end_is_not_trained_on(folder):
    shorter = make_trainer(folder, **{**SAVES, "max_steps": 1})
    shorter.train(resume_from_checkpoint=True)
    assert shorter.state.global_step == 2


def test_checkpoints_of_another_run_beside_ones_own_are_refused_before_rotation_removes_them(folder, tmp_path):
    make_trainer(tmp_path / "other", seed=3, **{**SAVES, "max_steps": 1, "save_steps": 1}).train()
    shutil.copytree(tmp_path / "other" / "checkpoint-1", folder / "checkpoint-1")
    with pytest.raises(ValueError, match="checkpoint-1.*other settings"):
        make_trainer(folder, save_total_limit=1, **SAVES).train(resume_from_checkpoint=True)
    assert (folder / "checkpoint-1").is_dir()


def test_a_run_is_finished_when_it_says_so_and_is_the_same(tmp_path):
    folder = RunFolder(tmp_path, {"config": {"eps": "1/255"}})
    folder.begin()
    folder.note(FINISHED, 3)
    assert not folder.is_finished()  # what it wrote has been removed
    (tmp_path / "model.safetensors").touch()
    assert folder.is_finished()
    assert not RunFolder(tmp_path, {"config": {"eps": "2/255"}}).is_finished()
    folder.note(TRAINED, 3)
    assert not folder.is_finished()


def test_a_run_that_was_stopped_before_training_keeps_its_verdicts_and_another_does_not(tmp_path):
    settings = {"config": {"eps": "1/255"}}
    verdicts = tmp_path / "verdicts_before.jsonl"
    RunFolder(tmp_path, settings).begin()
    verdicts.touch()
    again = RunFolder(tmp_path, settings)
    assert again.how_to_go_on() == "The same command goes on."
    again.check()
    again.begin()
    assert verdicts.exists()

    RunFolder(tmp_path, {"config": {"eps": "2/255"}}).begin()
    assert not verdicts.exists()
    verdicts.touch()
    RunFolder(tmp_path, {"config": {"eps": "2/255"}}).begin(overwrite=True)
    assert not verdicts.exists()


def test_what_goes_on_with_a_stopped_run_is_what_its_folder_then_takes(folder):
    trainer = make_trainer(folder, **SAVES)
    assert "With --resume_from_checkpoint true" in trainer.folder.how_to_go_on()
    trainer.train(resume_from_checkpoint=True)

    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    trainer = make_trainer(folder, **SAVES, overwrite=True)
    assert "with --overwrite true" in trainer.folder.how_to_go_on()
    trainer.train()


def test_a_finished_run_whose_last_checkpoint_was_taken_away_is_not_finished(tmp_path):
    trainer = make_trainer(tmp_path, **{**SAVES, "max_steps": 4})
    trainer.train()
    folder = RunFolder(tmp_path, settings_of(trainer.args))
    folder.note(FINISHED, 4)
    assert folder.is_finished()
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert not folder.is_finished()


def test_settings_are_what_changes_the_results(tmp_path):
    def settings(**options):
        return settings_of(make_trainer(tmp_path, **options).args)

    assert settings() == settings(logging_steps=7, save_strategy="steps", disable_tqdm=False, hub_token="hf_x")
    assert settings() == settings(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    for option in ({"eps": "1/255"}, {"weight_decay": 0.5}, {"per_device_train_batch_size": 4}, {"optim": "sgd"}):
        assert settings() != settings(**option)
    assert "hf_x" not in json.dumps(settings(hub_token="hf_x"))


# ---- Locks ----

HOLD = """
import sys
from hf_pmgaft.training.run_folder import RunFolder
with RunFolder(sys.argv[1], {}).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_at_once_until_its_user_dies(tmp_path, holder):
    folder = RunFolder(tmp_path, {})
    with pytest.raises(ValueError, match=rf"another run is using \(process {holder.pid} on .*Wait for its end"):
        folder.locked().__enter__()
    with pytest.raises(ValueError, match="another run is using"):
        make_trainer(tmp_path, max_steps=1).train()
    holder.kill()
    holder.wait()
    with folder.locked(), RunFolder(tmp_path, {}).locked():
        pass
    assert not (tmp_path / "run.lock").exists()


def test_a_lock_is_not_inherited_by_workers(tmp_path):
    with RunFolder(tmp_path, {}).locked():
        child = os.fork()
        if child == 0:
            import fcntl

            with open(tmp_path / "run.lock", "a") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with RunFolder(tmp_path, {}).locked():
        pass
    assert "cannot be locked (No locks available): see to it that no other run uses it" in caplog.text
