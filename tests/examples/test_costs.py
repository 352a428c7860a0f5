"""What it costs to be robust: figures of reports and texts side by side."""

import importlib
import json
import statistics
from dataclasses import replace

import pytest

from hf_pmgaft.evaluation.report import RobustnessReport, SetResult


@pytest.fixture
def costs(monkeypatch, tmp_path):
    module = importlib.import_module("costs")
    monkeypatch.setattr(module.board, "RUNS", {"test": tmp_path / "board_runs.json"})
    return module


def test_figures_are_means_and_deviations_over_seeds(costs):
    figures = {
        "accuracy": {"clean": {"none": [80.0], "fare": [70.0, 74.0]}, "4/255": {"none": [2.0], "fare": [40, 41]}}
    }
    found = costs.summarized(figures)["accuracy"]
    assert found["clean"]["fare"] == {"mean": 72.0, "std": round(statistics.stdev([70, 74]), 6), "by_seed": [70, 74]}
    assert found["4/255"]["none"] == {"mean": 2.0, "std": 0.0, "by_seed": [2.0]}
    lines = costs.table(figures, {"none": "none", "fare": "FARE"})
    assert lines[0] == "| figure in % | radius | none | FARE |"
    assert lines[2:] == ["| accuracy | clean | 80.0 | 72.0 ± 2.8 |", "| accuracy | 4/255 | 2.0 | 40.5 ± 0.7 |"]


def report(stands, protocol, figure="accuracy"):
    """Of two sets: clean accuracies .9 and .7, and what stands after each attack."""
    sets = [SetResult(f"{i} {figure}", 5, 10, clean, 0.1, stands, figure=figure) for i, clean in enumerate((0.9, 0.7))]
    return RobustnessReport({"attacks": [], "seed": protocol}, sets)


def test_reports_and_texts_become_the_figures_of_their_methods(costs, tmp_path):
    args = costs.parse(["--methods", "--output_dir", str(tmp_path)])
    folders = {"none": [tmp_path / "none"], "fare": [tmp_path / "fare-0", tmp_path / "fare-1"]}
    for i, folder in enumerate([*folders["none"], *folders["fare"]]):
        folder.mkdir()
        ranks = report({"m4": 0.5 + i / 10, "c4": 0.4 + i / 10, "m8": 0.3, "c8": 0.2 + i / 10}, 0, "I2T R@1")
        ranks.sets += [replace(result, figure=name) for result in ranks.sets for name in costs.RECALLS[1:]]
        ranks.save(costs.board.report_file(folder, "costs", "retrieval"))
        report({"m4": 0.6 - i / 10}, i == 2).save(costs.board.report_file(folder, "costs", "shift"))
    texts = {"own tower": 0.75, "fare-0": 0.5, "fare-1": 0.25}
    towers = {name: {"caption": {"clean": {"chrf": value}}} for name, value in texts.items()}
    costs.board.write(costs.text_file(args, "costs", ""), {"towers": towers, "protocol": {"seed": 0}})

    found = costs.by_reports(folders, "costs")
    assert found["I2T R@1"]["clean"] == {"none": [pytest.approx(80)], "fare": [pytest.approx(80)] * 2}
    assert found["I2T R@1"]["4/255"] == {"none": [pytest.approx(40)], "fare": [pytest.approx(50), pytest.approx(60)]}
    assert found["I2T R@1"]["8/255"] == {"none": [pytest.approx(20)], "fare": [pytest.approx(30), pytest.approx(40)]}
    assert found["shift"]["4/255"] == {"none": [pytest.approx(60)], "fare": [pytest.approx(50), pytest.approx(40)]}
    assert costs.by_texts(args, "costs", folders) == {"caption, chrf": {"clean": {"none": [75], "fare": [50, 25]}}}
    assert costs.protocols_of_texts(args, "costs") == {"llava": {"seed": 0}}
    costs.board.write(costs.board.RUNS["test"], {"none": {"protocols": {}}})
    with pytest.raises(SystemExit, match="reports of shift follow several protocols"):
        costs.protocols(args, "costs", folders, [])


def test_texts_alone_are_refused_where_nothing_would_stand_beside_them(costs, tmp_path):
    file = tmp_path / "out.json"
    cells = {"accuracy": {"clean": {"none": {"by_seed": [80.0]}}}}
    costs.board.write(file, {"seeds": [0], "figures": cells, "protocols": {"shift": "abc"}})
    assert costs.earlier(file, [0], ["none"]) == ({"accuracy": {"clean": {"none": [80.0]}}}, {"shift": "abc"})
    assert costs.earlier(file, [1], ["none"]) == costs.earlier(file, [0], ["none", "fare"]) == ({}, {})
    before = file.read_text()
    with pytest.raises(SystemExit, match="out.json has no figures of these methods and seeds"):
        costs.main(["--texts", "--methods", "fare", "--seeds", "0", "--file", str(tmp_path / "out")])
    assert file.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["costs", "stronger"])
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

    figures, places = written["figures"], {"4/255": 1, "8/255": 3}
    if kind == "stronger":
        places = {"4/255": 1, "4/255, stronger": 3, "8/255": 5, "8/255, stronger": 7}
    assert {"I2T R@1", "T2I R@10", "shift", "caption, chrf", "target 'warning', success"} <= set(figures)
    assert list(figures["I2T R@1"]) == ["clean", *places] and {*figures["caption, chrf"]} == {"clean", *places}

    report = board.load_report(board.report_file(tmp_path / "none", kind, "retrieval")).of("I2T R@5")
    assert all(entry["prompt_templates"] == ["{}"] for entry in report.protocol["sets"].values())
    for radius, place in places.items():
        by_hand = [list(result.attacks.values())[place] for result in report.sets]
        name = list(report.sets[0].attacks)[place]
        assert radius[:5] in name and ("PGD-2" in name) == ("stronger" in radius)
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
    assert (tmp_path / "out.html").read_text() == costs.page(figures, {"none": "none"})

    # What the LLaVA writes alone leaves the rest as it was.
    board.report_file(tmp_path / "none", kind, "retrieval").unlink()
    monkeypatch.setattr(board, "measure_none", None)
    costs.main([*argv, "--texts", *(["--stronger"] if kind == "stronger" else [])])
    assert json.loads((tmp_path / "out.json").read_text()) == written
