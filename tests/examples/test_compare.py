"""The comparison of methods: its table, its paired difference, and that training never looks at an evaluation set."""

import argparse
import json
import math
import sys
from pathlib import Path

import pytest

from hf_pmgaft.evaluation.report import RobustnessReport, SetResult

ATTACKS = ["PGD-50 margin linf 4/255", "PGD-50 margin linf 8/255"]


@pytest.fixture
def compare():
    import compare

    return compare


def result(name: str, clean: list[int], robust: list[int]) -> SetResult:
    verdicts = {"clean": clean, ATTACKS[0]: robust, ATTACKS[1]: [0] * len(robust)}
    accuracy = {key: sum(values) / len(values) for key, values in verdicts.items()}
    attacks = {key: accuracy[key] for key in ATTACKS}
    return SetResult(name, 2, len(clean), accuracy["clean"], accuracy[ATTACKS[0]], attacks, verdicts)


def test_paired_difference_is_that_of_equal_images(compare):
    ours = [[result("food", [1, 1, 1, 0], [1, 0, 1, 0])], [result("food", [1, 1, 1, 1], [1, 0, 0, 0])]]
    theirs = [[result("food", [1, 0, 1, 0], [0, 0, 0, 0])], [result("food", [1, 0, 1, 1], [0, 0, 0, 0])]]

    # Robust: images differ by 1, 0, 1/2 and 0 on average over the two seeds, of variance 0.2292.
    mean, half = compare.paired_difference(ours, theirs, ATTACKS[0])
    assert mean == pytest.approx(37.5) and half == pytest.approx(100 * 1.96 * math.sqrt(0.229167 / 4), rel=1e-4)
    assert compare.paired_difference(ours, ours, "clean") == (0, 0)
    backwards, same = compare.paired_difference(theirs, ours, ATTACKS[0])
    assert (backwards, same) == (-mean, half)


def save_reports(folder: Path, file: str):
    made = {
        "none": [1, 0, 0, 0],
        "tecoa-0": [1, 1, 0, 0],
        "tecoa-1": [1, 1, 1, 1],
        "pmg_aft-0": [1, 1, 1, 0],
        "pmg_aft-1": [1, 1, 1, 1],
    }
    for name, robust in made.items():
        (folder / name).mkdir()
        (folder / name / "model.safetensors").touch()
        sets = [result("animals", [1, 1, 0, 0], [0, 0, 0, 0]), result("food", [1, 1, 1, 1], robust)]
        RobustnessReport({"attacks": ATTACKS}, sets).save(folder / name / file)


def test_table_has_means_without_the_tuned_set_and_spreads_over_seeds(compare, tmp_path, monkeypatch, capsys):
    save_reports(tmp_path, "test-pgd50-4of255-8of255.json")
    flags = ["--seeds", "0", "1", "--methods", "tecoa", "pmg_aft", "--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["compare.py", *flags, "--file", str(tmp_path / "out.json")])

    compare.main()

    printed = capsys.readouterr().out.splitlines()
    assert "| none | - | 100.0 | 25.0 | 0.0 | 0.0 to 74.0 | 50.0 | 0.0 |" in printed
    assert "| TeCoA | 2 | 100.0 ± 0.0 | 75.0 ± 35.4 | 0.0 ± 0.0 | 46.7 to 100.0 | 50.0 ± 0.0 | 0.0 ± 0.0 |" in printed
    difference = json.loads((tmp_path / "out.json").read_text())["minus_tecoa"]["PMG-AFT"]
    assert difference[ATTACKS[0]][0] == 12.5 and difference["clean"] == [0, 0]


def test_columns_follow_the_order_of_the_radii(compare, tmp_path, monkeypatch, capsys):
    save_reports(tmp_path, "test-pgd50-8of255-4of255.json")
    flags = ["--eps", "8/255", "4/255", "--methods", "tecoa", "--output_dir", str(tmp_path), "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *flags])

    compare.main()

    header, _, none, _ = capsys.readouterr().out.splitlines()
    assert "| clean | robust 8/255 | robust 4/255 |" in header and "| 100.0 | 0.0 | 25.0 |" in none


@pytest.mark.slow
def test_training_looks_at_no_evaluation_set(compare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(output_dir=str(tmp_path), eps=["4/255"], flags=["--max_steps", "1", "--use_cpu"])

    for method, (_, flags) in compare.METHODS.items():
        folder = compare.tuned(args, method, 3)

        assert (folder / "model.safetensors").exists()
        assert not list(folder.glob("robustness*"))
        config = json.loads((folder / "training_config.json").read_text())
        assert (config["objective"], config["seed"], config["eps"]) == (flags[1], 3, "4/255")
