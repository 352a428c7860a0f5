"""The study of what the embedded LLaVA writes: two attacks image by image, and what is kept of them."""

import importlib
import json
import sys

import pytest


@pytest.fixture
def study(monkeypatch, tmp_path):
    module = importlib.import_module("answers")
    monkeypatch.setattr(module.board, "chosen", lambda name: 1)
    monkeypatch.setattr(module.board, "start", lambda *args: None)
    return module


def cell(scores):
    return {"cider": sum(scores) / len(scores), "worst_scores": scores}


def reports(study, args, scores):
    """Reports of the runs, in which scores of four images are given by run and tower, clean and at 4/255."""
    for run, task in {"ensemble": "caption", "pgd-caption": "caption"}.items():
        towers = {
            tower: {task: {"clean": cell([4.0] * 4), "4/255": cell(of_tower)}}
            for tower, of_tower in scores[run].items()
        }
        study.board.write(study.text_file(args, run), {"protocol": {"attack": run}, "towers": towers})
    pope = {"clean": {"f1": 0.8, "worst_scores": [1, 1]}, "4/255": {"f1": 0.2, "worst_scores": [1, 0]}}
    towers = {tower: {"pope popular": pope} for tower in scores["ensemble"]}
    study.board.write(study.text_file(args, "pope"), {"protocol": {"attack": "pope"}, "towers": towers})


def test_figures_are_those_of_each_attack_and_differences_are_paired(study, monkeypatch, tmp_path, capsys):
    monkeypatch.delitem(study.RUNS, "pgd-vqa")
    options = ["--methods", "fare", "--seeds", "0", "1", "--table"]
    options += ["--output_dir", str(tmp_path), "--results", str(tmp_path)]
    args = study.parse(options)
    of_seeds = [study.board.folder_of(args, "fare", 1, seed).name for seed in (0, 1)]
    own = study.own_name()
    ensemble = {own: [0.0, 0, 0, 1], of_seeds[0]: [1.0, 2, 0, 1], of_seeds[1]: [1.0, 2, 0, 3]}
    pgd = {own: [0.0, 0, 0, 1], of_seeds[0]: [2.0, 2, 0, 1], of_seeds[1]: [2.0, 2, 0, 4]}
    reports(study, args, {"ensemble": ensemble, "pgd-caption": pgd})
    study.main(options)

    kept = json.loads((tmp_path / "answers.json").read_text())
    assert list(kept["figures"]["caption"]) == ["clean", "4/255, ensemble", "4/255, PGD"]
    assert kept["figures"]["caption"]["4/255, ensemble"]["fare"]["by_seed"] == [100.0, 150.0]
    assert kept["figures"]["caption"]["clean"]["none"]["by_seed"] == [400.0]
    assert kept["figures"]["pope popular"]["clean"]["none"]["by_seed"] == [80.0]
    assert kept["figures"]["pope popular"]["4/255, PGD"]["fare"]["by_seed"] == [20.0, 20.0]
    assert "pope popular" not in kept["PGD minus ensemble"]
    fare = kept["PGD minus ensemble"]["caption"]["4/255"]["fare"]
    assert fare["points"] == 37.5 and fare["images PGD leaves higher, lower"] == [2, 0]
    assert fare["interval_95"][0] >= 0 and kept["PGD minus ensemble"]["caption"]["4/255"]["none"]["points"] == 0
    assert kept["protocols"]["pgd-caption"] == {"attack": "pgd-caption"} and (tmp_path / "answers.png").is_file()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| figure in % | radius | none | FARE |"
    assert "| caption | 4/255, PGD | 25.0 | 162.5 ± 53.0 |" in lines
    assert any(line.startswith("| caption | 4/255 | +0.0 (+0.0 to +0.0) | +37.5 (") for line in lines)


def test_what_other_runs_came_to_stays(study, tmp_path, capsys):
    options = ["--methods", "--seeds", "0", "--table", "--output_dir", str(tmp_path), "--results", str(tmp_path)]
    args = study.parse(options)
    reports(study, args, {run: {study.own_name(): [1.0]} for run in ("ensemble", "pgd-caption")})
    study.main([*options, "--runs", "pope"])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| pope popular | clean | 80.0 |",
        "| pope popular | 4/255, PGD | 20.0 |",
    ]
    study.main([*options, "--runs", "ensemble", "pgd-caption"])
    before = json.loads((tmp_path / "answers.json").read_text())
    assert list(before["figures"]) == ["pope popular", "caption"]
    assert list(before["figures"]["caption"]) == ["clean", "4/255, ensemble", "4/255, PGD"]
    study.main([*options, "--runs", "ensemble"])
    assert json.loads((tmp_path / "answers.json").read_text()) == before
    assert "| caption | 4/255, PGD | 100.0 |" in capsys.readouterr().out

    study.main([*options, "--runs", "pope", "--seeds", "1"])  # which stands beside nothing of seed 0
    after = json.loads((tmp_path / "answers.json").read_text())
    assert list(after["figures"]) == ["pope popular"] and list(after["protocols"]) == ["pope"]


def test_runs_differ_in_the_attack_alone_and_one_that_fails_is_told_at_the_end(study, monkeypatch, tmp_path):
    commands = []

    def run(command, **options):
        commands.append(command)
        return type("Done", (), {"returncode": int("404" in command)})

    monkeypatch.setattr(study.subprocess, "run", run)
    args = study.parse(["--output_dir", str(tmp_path), "--jobs", "1"])
    with pytest.raises(SystemExit, match="answers-pgd-vqa.json ended with code 1: see its log"):
        study.write_texts(args, [tmp_path / "fare-1-0"])
    assert len(commands) == 4 and all(command[:3] == [sys.executable, "-m", "hf_pmgaft.cli"] for command in commands)

    from hf_pmgaft.cli import attack_vlm

    parsed = [vars(attack_vlm.parse(command[4:])) for command in commands if "pope" not in command]
    differing = {key for options in parsed for key in options if options[key] != parsed[0][key]}
    assert differing == {"tasks", "attack", "num_steps", "output_file", "verdict_file"}
    assert parsed[0]["towers"] == [str(tmp_path / "fare-1-0")]


def test_pgd_takes_as_many_passes_as_the_ensemble(study):
    from hf_pmgaft.downstream.ensemble import stages
    from hf_pmgaft.downstream.scores import VqaScore
    from hf_pmgaft.downstream.tasks import CAPTION, VQA, AnswerTask

    asked = (["what?"], [["a cat"]], VqaScore([["a cat"]]))
    walks = {
        "pgd-caption": stages(AnswerTask("c", CAPTION, *asked), 0),
        "pgd-vqa": stages(AnswerTask("v", VQA, *asked), 0),
    }
    steps = {run: int(flags[flags.index("--num_steps") + 1]) for run, (_, flags) in study.RUNS.items()}
    for run, of_image in walks.items():
        assert steps[run] == len(of_image) * (steps["ensemble"] + 1)
