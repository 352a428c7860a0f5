"""What prompts cost before training: starts are measured once, and rows of the grid are read beside them."""

import importlib
import json

import pytest

from hf_pmgaft.evaluation.report import RobustnessReport, SetResult
from hf_pmgaft.few_shots.grid import Grid


@pytest.fixture
def study():
    return importlib.import_module("prompt_methods")


def test_words_begin_as_the_template_and_a_random_start_does_not(study, tmp_path, capsys):
    file = tmp_path / "starts.json"
    names = ["the template, no prompts", "context, words, no full stop", "context, 10 random"]
    line = ["--starts", *names, "--draws", "1", "--rows", str(tmp_path), "--file", str(file)]
    study.main(line)
    template, words, random = (json.loads(file.read_text())["starts"][name]["clean"] for name in names)
    assert template == words == 78.9 and random < 20
    stored = json.loads(study.RESULTS.read_text())["starts"]
    assert stored["context, words, no full stop"]["clean"] == words and set(stored) == set(study.STARTS)


def test_rows_of_the_grid_are_read_by_their_names(study, tmp_path, monkeypatch):
    for name in ("test-none", "test-capt-4-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plain.json").touch()
    trained = {"steps": 100, "parameters": 7, "cpu_seconds": 3.5, "seconds": 9.0}
    (tmp_path / "test-capt-4-1" / "trained.json").write_text(json.dumps(trained))
    result = SetResult("test", 2, 4, 0.75, 0.5, {}, {})
    monkeypatch.setattr(RobustnessReport, "load", lambda file: RobustnessReport({}, [result]))
    assert study.measured_rows(tmp_path) == [
        {
            **{"set": "test", "method": "capt", "shots": "4", "seed": 1, "steps": 100, "parameters": 7},
            **{"cpu_seconds": 3.5, "images": 4, "clean": 75.0, "robust": 50.0},
        },
        {"set": "test", "method": "none", "images": 4, "clean": 75.0, "robust": 50.0},
    ]


def test_the_grid_of_the_study_reads(study):
    grid = Grid.read(study.RESULTS.parents[1] / "prompt_methods.yaml")
    assert grid.methods["fap"]["tuning_kwargs"]["coupling"] == "vision_to_text"
    assert grid.methods["capt_robust"] == {**grid.methods["capt"], "backbone": "tecoa"}
