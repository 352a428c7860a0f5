"""The study of segmentation: what is measured, what is kept of it, and the table."""

import importlib

import pytest

from hf_pmgaft.evaluation.report import RobustnessReport, SetResult

PGD = {"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 20, "loss": "ce", "restarts": 1}


@pytest.fixture
def study(monkeypatch, tmp_path):
    module = importlib.import_module("segmentation")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs.json")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def report(robust: float) -> RobustnessReport:
    """Of ten scenes, half of whose pixels are right without an attack."""
    sets = [
        SetResult("scenes mIoU", 5, 10, 0.5, robust, {"PGD": robust}, figure="mIoU", class_names=["cat"]),
        SetResult("scenes pixel accuracy", 5, 10, 0.6, robust, {"PGD": robust}, figure="pixel accuracy"),
    ]
    for result in sets:
        of_images = {}
        for key, share in {"clean": result.clean_accuracy, "robust": robust}.items():
            right = round(100 * share)
            of_images[key] = [[[0, right, 100]] if result.class_names else [right, 100]] * 10
        result.verdicts = {"sample_id": list(range(10)), **of_images}
    return RobustnessReport({"attacks": [PGD], "headline": "linf 4/255"}, sets)


def test_each_method_is_measured_once_before_further_seeds_and_the_original_once(study):
    runs = study.wanted(study.parse(["--parts", "headline"]))
    assert len(runs) == 2 * (1 + 3 * 3) == len(set(runs))
    assert [run.method for run in runs[:4]] == ["none", "tecoa", "pmg_aft", "fare"]
    assert {run.seed for run in runs if run.method == "none"} == {0}
    towers = study.towers(runs)
    assert len(towers) == 9 and ("none", 0, 0) not in towers
    assert study.towers([]) == []


def test_what_was_measured_is_kept_and_not_measured_again(study, monkeypatch):
    for seed, robust in enumerate((0.2, 0.3)):
        study.keep(study.Run("tecoa", seed, "sclip", "headline"), report(robust), seconds=90.0)
    entry = study.read_runs()["tecoa/1/sclip/headline"]
    assert entry["figures"]["mIoU"]["PGD"] == 30.0 and entry["scenes"] == 10 and entry["minutes"] == 1.5
    assert entry["figures"]["mIoU"]["clean_interval_95"] == [50.0, 50.0]

    asked = []
    monkeypatch.setattr(study, "measure", lambda args, runs: asked.extend(runs))
    monkeypatch.setattr(study.board, "start", lambda *args: None)
    options = ["--parts", "headline", "--readouts", "sclip", "--methods", "tecoa"]
    study.main(options)
    assert [run.key for run in asked] == ["none/0/sclip/headline", "tecoa/2/sclip/headline"]


def test_the_table_has_means_and_deviations_over_seeds(study, capsys):
    for seed, robust in enumerate((0.2, 0.3)):
        study.keep(study.Run("tecoa", seed, "sclip", "headline"), report(robust), seconds=90.0)
    study.keep(study.Run("none", 0, "sclip", "headline"), report(0.1), seconds=90.0)
    study.main(["--table", "--methods", "tecoa"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| readout | mean IoU | none | TeCoA |"
    assert lines[2:] == ["| sclip | clean | 50.0 ± 0.0 | 50.0 ± 0.0 |", "| sclip | PGD | 10.0 ± 0.0 | 25.0 ± 7.1 |"]
    kept = study.board.read(study.RESULTS / "segmentation.json")["figures"]["mIoU"]["sclip"]["headline"]["PGD"]
    assert kept["tecoa"] == {"mean": 25.0, "std": 7.07, "by_seed": [20.0, 30.0]}
    assert (study.RESULTS / "segmentation.png").is_file()


def test_a_tower_is_measured_by_the_command_and_a_failure_is_told_at_the_end(study, monkeypatch, tmp_path):
    commands = []

    def run(command, **options):
        commands.append(command)
        is_first = len(commands) == 1
        if not is_first:
            report(0.2).save(command[command.index("--output_file") + 1])
        return study.subprocess.CompletedProcess(command, returncode=int(is_first))

    monkeypatch.setattr(study.subprocess, "run", run)
    args = study.parse(["--output_dir", str(tmp_path), "--jobs", "1"])
    runs = [study.Run("none", 0, "sclip", "radii"), study.Run("fare", 1, "clearclip", "headline")]
    with pytest.raises(SystemExit, match="segmentation-radii-sclip.json ended with code 1"):
        study.measure(args, runs)
    assert list(study.read_runs()) == ["fare/1/clearclip/headline"]
    assert commands[0][commands[0].index("--max_samples") + 1] == "50"
    assert str(study.board.folder_of(args, "fare", study.board.chosen("fare"), 1)) in commands[1]
