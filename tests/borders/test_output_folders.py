"""Folders that a run is told to write into, as they are found, and arguments of resuming."""

import json
from pathlib import Path

import pytest
from support.borders import Refused, check, outcomes

from hf_pmgaft.training import checkpoints
from hf_pmgaft.training.checkpoints import parse_resume, to_resume
from hf_pmgaft.training.run_folder import BEGUN, FINISHED, TRAINED, RunFolder

MINE = {"config": {"eps": "4/255", "max_steps": 20}, "command": {"dataset_name": "food"}}
OTHER = {"config": {"eps": "8/255", "max_steps": 20}, "command": {"dataset_name": "food"}}
LONGER = {"config": {"eps": "4/255", "max_steps": 40}, "command": {"dataset_name": "food"}}
IN_PYTHON = {"config": {"eps": "4/255", "max_steps": 20}, "command": None}
NEWER = {"config": {**MINE["config"], "new_option": 1}, "command": {"dataset_name": "food"}}


def make(folder: Path, names: list[str], settings=None, how_far=BEGUN) -> None:
    """Files by name; those of a checkpoint with the manifest that makes it complete."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    for path in folder.glob("checkpoint-*"):
        if (path / "weights").exists():
            checkpoints.seal(path, {"seed": 0})
    if settings is not None:
        RunFolder(folder, settings).note(how_far, 20)


# What lies in the folder, the settings of its run, how far it came, and what is passed.
FOLDERS = {
    "an empty one": ([], None, None, {}, True),
    "notes": (["notes.md", "figure.png", "sub/data.json"], None, None, {}, True),
    "a repository": ([".git/config", ".gitattributes", "README.md"], None, None, {}, True),
    "logs of trackers": (["runs/events.out.tfevents.1"], None, None, {}, True),
    "a run that was killed before it saved": (["verdicts_before.jsonl"], MINE, BEGUN, {}, True),
    "another one that was": (["verdicts_before.jsonl"], OTHER, BEGUN, {}, True),
    "a cut-off checkpoint alone": (["checkpoint-2/part"], MINE, BEGUN, {}, True),
    "a finished run": (["model.safetensors"], MINE, FINISHED, {}, Refused("holds this run, trained to step 20")),
    "a trained one": (["model.safetensors"], MINE, TRAINED, {}, Refused("holds this run, trained to step 20")),
    "an unfinished one": (["checkpoint-2/weights"], MINE, BEGUN, {}, Refused("Pass --resume_from_checkpoint true")),
    "another one": (["model.safetensors"], OTHER, FINISHED, {}, Refused("config.eps ('8/255' there, '4/255' now)")),
    "a longer one": (["checkpoint-2/weights"], LONGER, BEGUN, {}, Refused("config.max_steps (40 there, 20 now)")),
    "a run of a notebook": (["model.safetensors"], IN_PYTHON, TRAINED, {}, Refused("command.dataset_name")),
    "a newer version's": (["model.safetensors"], NEWER, TRAINED, {}, Refused("differs in config.new_option")),
    "an older version's": (["training_config.json"], None, None, {}, Refused("a run of which nothing is known")),
    "somebody's model": (["config.json", "model.safetensors"], None, None, {}, Refused("nothing is known")),
    "a report": (["robustness.json"], None, None, {}, Refused("holds robustness.json")),
    "another trainer's checkpoint": (["checkpoint-5/training_args.bin"], MINE, BEGUN, {}, Refused("another trainer")),
    "overwriting a run": (["model.safetensors", "checkpoint-2/weights"], OTHER, BEGUN, {"overwrite": True}, True),
    "overwriting an older version's": (
        *(["training_config.json", "model.safetensors"], None, None),
        *({"overwrite": True}, True),
    ),
    "overwriting somebody's model": (
        *(["model.safetensors"], None, None),
        *({"overwrite": True}, Refused("which no run of this package wrote")),
    ),
    "overwriting another trainer's": (
        *(["checkpoint-5/training_args.bin"], None, None),
        *({"overwrite": True}, Refused("another trainer")),
    ),
    "overwriting what is read": (
        *(["checkpoint-2/weights"], OTHER, BEGUN),
        *({"overwrite": True, "read": ["checkpoint-2"]}, Refused("which is read and would be removed")),
    ),
    "overwriting what is resumed": (
        *(["checkpoint-2/weights"], MINE, BEGUN),
        *({"overwrite": True, "resume_from_checkpoint": True}, Refused("Leave out overwrite or")),
    ),
    "going on": (["checkpoint-2/weights"], MINE, BEGUN, {"resume_from_checkpoint": True}, True),
    "going on for longer": (["checkpoint-2/weights"], LONGER, BEGUN, {"resume_from_checkpoint": True}, True),
    "going on from a checkpoint elsewhere": (
        *(["model.safetensors"], OTHER, FINISHED),
        *({"resume_from_checkpoint": "/elsewhere/checkpoint-2"}, Refused("holds another run")),
    ),
}


@outcomes({name: (case[:-1], case[-1]) for name, case in FOLDERS.items()})
def test_folders_as_a_run_finds_them(given, outcome, tmp_path, monkeypatch):
    names, settings, how_far, options = given
    monkeypatch.chdir(tmp_path)
    make(tmp_path, names, settings, how_far)
    before = sorted(tmp_path.rglob("*"))
    check(lambda: RunFolder(tmp_path, MINE).check(**options) or True, outcome)
    assert sorted(tmp_path.rglob("*")) == before


WORDS = {
    "true": ("true", True),
    "True": ("True", True),
    "yes": ("yes", True),
    "a bool": (True, True),
    "false": ("false", None),
    "FALSE": ("FALSE", None),
    "no": ("no", None),
    "none": ("None", None),
    "nothing": (None, None),
    "no text": ("", None),
    "a bool for no": (False, None),
    "a folder": ("out/checkpoint-4", "out/checkpoint-4"),
    "a path": (Path("out"), Path("out")),
    "a number": (4, Refused("which names no checkpoint")),
    "a list": (["checkpoint-4"], Refused("which names no checkpoint")),
}


@outcomes(WORDS)
def test_words_that_ask_to_go_on(given, outcome):
    check(lambda: parse_resume(given), outcome)


CHECKPOINTS = {
    "the newest": (True, "checkpoint-4"),
    "nothing": (None, None),
    "an earlier one": ("out/checkpoint-2", "checkpoint-2"),
    "with its slash": ("out/checkpoint-2/", "checkpoint-2"),
    "a path": (Path("out/checkpoint-4"), "checkpoint-4"),
    "a cut-off one": ("out/checkpoint-6", Refused("has no readable complete.json")),
    "a damaged one": ("out/checkpoint-8", Refused("weights has 1 bytes instead of 2")),
    "a missing folder": ("out/checkpoint-5", Refused("there is no such folder")),
    "the run's folder": ("out", Refused("has no readable complete.json")),
    "a plain model": ("model", Refused("has no readable complete.json")),
    "a file": ("model/config.json", Refused("there is no such folder")),
    "a name of the Hub": ("user/clip-pmgaft", Refused("there is no such folder")),
    "a number": ("4", Refused("there is no such folder")),
}


@outcomes(CHECKPOINTS)
def test_checkpoints_to_go_on_from(given, outcome, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "out", ["checkpoint-2/weights", "checkpoint-4/weights", "checkpoint-8/weights"])
    make(tmp_path / "out", ["checkpoint-6/part"])
    make(tmp_path, ["model/config.json", "model/model.safetensors"])
    (tmp_path / "out" / "checkpoint-8" / "weights").write_text("x")

    def name():
        folder = to_resume(given, "out", {"seed": 0})
        return folder and folder.name

    check(name, outcome)


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path):
    make(tmp_path, ["checkpoint-2/weights"])
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        to_resume(tmp_path / "checkpoint-2", str(tmp_path / "new"), {"seed": 1})


def test_a_record_that_was_cut_off_is_none(tmp_path):
    make(tmp_path, ["model.safetensors"], MINE, FINISHED)
    (tmp_path / "run.json").write_text(json.dumps({"state": "finished"})[:10])
    assert not RunFolder(tmp_path, MINE).is_finished()
    with pytest.raises(ValueError, match="nothing is known"):
        RunFolder(tmp_path, MINE).check()
