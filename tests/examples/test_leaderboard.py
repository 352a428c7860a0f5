"""The leaderboard of the embedded default: its methods, what is kept of runs, and when one is ahead of another."""

import json
import math

import leaderboard as board
import pytest

from hf_pmgaft import OBJECTIVES

PUBLISHED = [name for name, method in board.METHODS.items() if not method.get("beyond")]


def test_every_objective_is_there_with_its_own_budget():
    assert {board.METHODS[name]["flags"]["objective"] for name in PUBLISHED} == set(OBJECTIVES)
    for name in PUBLISHED:
        options = board.configurations(name)
        assert len({json.dumps(option) for option in options}) == board.BUDGET


def test_chosen_is_the_best_of_the_configurations_that_are_listed():
    for name, found in board.read(board.SEARCH).items():
        means = [row["mean"] for row in found["configurations"]]
        assert found["chosen"] == means.index(max(means))
        for row, options in zip(found["configurations"], board.configurations(name), strict=True):
            assert {key: row[key] for key in options} == options
            assert row["mean"] == pytest.approx((row["clean"] + row["robust"]) / 2, abs=0.011)


def test_verdicts_are_kept_as_they_are():
    for verdicts in ([0, 0, 1], [1] * 70, [0], [False, True]):
        assert board.unpacked(board.packed(verdicts)) == verdicts


def test_difference_is_paired_over_images_and_seeds():
    first = [[[1, 1, 0, 1], [1, 0]], [[1, 1, 1, 1], [0, 0]]]
    second = [[[0, 1, 0, 0], [1, 0]], [[1, 1, 0, 0], [0, 0]]]
    mean, half = board.difference(first, second)
    # By hand: groups' differences .5 and 0 with both seeds; images' means over seeds .5, 0, .5, 1 and 0, 0.
    assert mean == pytest.approx(25)
    images = (0.5 / 3 / 4 + 0) / 4  # variance of .5 0 .5 1 is 1/6
    assert half == pytest.approx(196 * math.sqrt(images))
    rows = [{"verdicts": {"clean": verdicts}} for verdicts in (first, second)]
    assert board.ahead(*rows, "clean") == (25 > half)
    assert not board.ahead(rows[1], rows[0], "clean") and not board.ahead(rows[0], rows[0], "clean")
    hardly = {"verdicts": {"clean": [[[1, 0, 1, 0], [1, 0]]]}}, {"verdicts": {"clean": [[[0, 0, 1, 0], [1, 0]]]}}
    assert board.difference(*(row["verdicts"]["clean"] for row in hardly))[0] > 0 and not board.ahead(*hardly, "clean")


def test_single_run_is_paired_with_every_seed_and_the_spread_of_seeds_counts():
    ours, none = [[[1] * 8], [[1] * 4 + [0] * 4]], [[[0] * 8]]
    mean, half = board.difference(ours, none)
    assert mean == pytest.approx(75)
    images, seeds = (0.5 / 7) / 8, 0.125 / 2  # of 1 and .5 four times each; of the seeds' means 1 and .5
    assert half == pytest.approx(196 * math.sqrt(images + seeds))


def run_of(autoattack, clean):
    columns = {"autoattack": [board.packed(autoattack)], "clean": [board.packed(clean)]}
    return {"cost": {"parameters": 10, "seconds": 1.0, "peak_mib": 5}, "protocols": {"clean": "abc"}, **columns}


def test_ranking_is_made_from_the_kept_runs(tmp_path, monkeypatch, capsys):
    file, right, wrong = tmp_path / "board_runs.json", [1] * 40, [0] * 39 + [1]
    found = {"none": (wrong, right), "tecoa": (right, right), "fare": (right, wrong), "clean": (wrong, wrong)}
    key = {name: board.key_of(name, board.chosen(name), 0) for name in ("tecoa", "fare", "clean")}
    board.write(file, {key.get(name, name): run_of(*verdicts) for name, verdicts in found.items()})
    monkeypatch.setitem(board.RUNS, "validation", file)
    argv = ["rank", "--split", "validation", "--seeds", "0", "--methods", "tecoa", "fare", "clean"]
    board.rank(board.parse([*argv, "--output_dir", str(tmp_path / "nothing")]))
    rows = json.loads((tmp_path / "board.json").read_text())["rows"]
    ranks = {name: (row["autoattack_rank"], row["clean_rank"]) for name, row in rows.items()}
    assert ranks == {"none": (3, 1), "tecoa": (1, 1), "fare": (1, 3), "clean": (3, 3)}
    assert rows["tecoa"]["ahead_on_both"] == ["clean"] and rows["none"]["ahead_on_both"] == []
    assert (tmp_path / "board.png").stat().st_size > 1000 and not (tmp_path / "nothing").exists()
    assert (tmp_path / "board.html").read_text() == board.page(rows, ("autoattack", "clean"))
    table = capsys.readouterr().out
    assert "| 1 | TeCoA | 100.0 | 100.0 | 1 | 10 | 1 | 5 |" in table and "shift" not in table


def test_runs_of_several_protocols_are_not_ranked(tmp_path, monkeypatch):
    file, run = tmp_path / "board_runs.json", run_of([1, 0], [1, 0])
    board.write(file, {"none": run, board.key_of("fare", board.chosen("fare"), 0): {**run, "protocols": {}}})
    monkeypatch.setitem(board.RUNS, "validation", file)
    with pytest.raises(SystemExit, match="several protocols"):
        board.rank(board.parse(["rank", "--split", "validation", "--seeds", "0", "--methods", "fare"]))


def test_searched_style_is_none_to_rank_on(capsys):
    with pytest.raises(SystemExit):
        board.parse(["rank", "--split", "search"])
    assert "no style to rank on" in capsys.readouterr().err


def test_backbones_are_the_chosen_runs_of_the_same_seeds():
    assert board.backbones([("fare", 0, 2), ("apt", 3, 1)]) == [("tecoa", board.chosen("tecoa"), 1)]
