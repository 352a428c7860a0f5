"""What it costs to be robust: figures of reports and texts side by side."""

import importlib
import json
import statistics
from pathlib import Path

import pytest

EMOJI = Path(__file__).parent.parent / "examples/emoji"


@pytest.fixture
def costs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EMOJI))
    monkeypatch.syspath_prepend(str(EMOJI.parent))
    module = importlib.import_module("costs")
    monkeypatch.setattr(module.board, "RUNS", {"test": tmp_path / "board_runs.json"})
    return module


def test_figures_are_means_and_deviations_over_seeds(costs):
    figures = {
        "accuracy": {"clean": {"none": [80.0], "fare": [70.0, 74.0]}, "4/255": {"none": [2.0], "fare": [40, 41]}}
    }
    found = costs.summarized(figures)["accuracy"]
    assert found["clean"]["fare"] == {"mean": 72.0, "std": round(statistics.stdev([70, 74]), 3), "by_seed": [70, 74]}
    assert found["4/255"]["none"] == {"mean": 2.0, "std": 0.0, "by_seed": [2.0]}
    lines = costs.table(figures, {"none": "none", "fare": "FARE"})
    assert lines[0] == "| figure in % | radius | none | FARE |"
    assert lines[2:] == ["| accuracy | clean | 80.0 | 72.0 ± 2.8 |", "| accuracy | 4/255 | 2.0 | 40.5 ± 0.7 |"]


@pytest.mark.parametrize("kind", ["costs", pytest.param("stronger", marks=pytest.mark.slow)])
def test_every_part_is_measured_and_shown(costs, monkeypatch, tmp_path, kind, capsys):
    board, quick = costs.board, ["--num_steps", "1", "--max_samples", "12"]
    pgd = ["--attacks", *["pgd,num_steps=1,loss=margin", "pgd,num_steps=1,loss=ce"] * (1 + (kind == "stronger"))]
    if kind == "stronger":
        pgd[3:] = ["pgd,num_steps=2,loss=margin", "pgd,num_steps=2,loss=ce"]
    retrieval = [*board.EVALUATIONS[kind]["retrieval"], *quick, *(pgd if kind == "stronger" else [])]
    shift = [*board.EVALUATIONS[kind]["shift"], *quick, *(pgd if kind == "stronger" else [])]
    monkeypatch.setitem(board.EVALUATIONS, kind, {"retrieval": retrieval, "shift": shift})
    monkeypatch.setitem(board.GROUPS, "test", ("food", "flags"))
    monkeypatch.setattr(board, "SHIFT", ["lucide"])
    texts = costs.LLAVA[kind].items()
    few = ["--num_images", "2", "--num_steps", "1", "--tasks", "targeted", "caption", "--targets", "warning"]
    monkeypatch.setitem(costs.LLAVA, kind, {end: [*flags, *few] for end, flags in texts})
    run = {"autoattack": ["15", "14"], "clean": ["17", "17"], "protocols": {}, "cost": {}}  # 0101 0100, 0111 0111
    board.write(board.RUNS["test"], {"none": run})
    argv = ["--methods", "--output_dir", str(tmp_path), "--file", str(tmp_path / "out")]
    costs.main([*argv, *(["--stronger"] if kind == "stronger" else [])])
    written = json.loads((tmp_path / "out.json").read_text())
    figures, attacked = written["figures"], "4/255, stronger" if kind == "stronger" else "8/255"
    assert {"I2T R@1", "T2I R@10", "shift", "caption, chrf", "target 'warning', success"} <= set(figures)
    assert list(figures["I2T R@1"]) == list(figures["caption, chrf"]) == ["clean", "4/255", attacked]
    report = board.load_report(board.report_file(tmp_path / "none", kind, "retrieval")).of("I2T R@5")
    for place, radius in ((1, "4/255"), (3, attacked)):
        by_hand = [list(result.attacks.values())[place] for result in report.sets]
        assert figures["I2T R@5"][radius]["none"]["mean"] == pytest.approx(50 * sum(by_hand), abs=0.01)
    if kind == "costs":
        assert (
            figures["accuracy"]["clean"]["none"]["mean"] == 75 and figures["accuracy"]["4/255"]["none"]["mean"] == 37.5
        )
    else:
        assert "accuracy" not in figures
    assert written["protocols"]["retrieval"] == report.protocol_hash and len(written["protocols"]["shift"]) == 12
    assert "| I2T R@1 | clean |" in capsys.readouterr().out
    assert (tmp_path / "out.png").stat().st_size > 5000
