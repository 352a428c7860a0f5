"""How much weaker attacks in bfloat16 are: the table's figures are of the same images, and reports are kept."""

import importlib
import json

import pytest

from hf_pmgaft.cli import evaluate


@pytest.fixture
def study():
    return importlib.import_module("attack_precision")


@pytest.mark.slow
def test_each_model_is_attacked_in_both_precisions_and_with_another_seed(study, tmp_path, capsys, monkeypatch):
    file = tmp_path / "figures.json"
    command = ["--attacks", "pgd", "--output_dir", str(tmp_path / "reports"), "--file", str(file)]
    few = ["--", "--max_samples", "3", "--attacks", "fgsm"]
    study.main([*command, *few])

    coarse, lucky = json.loads(file.read_text())["rows"]
    assert (coarse["other"], lucky["other"]) == ("bf16", "fp32, seed 1") and coarse["n"] == 24
    for figures in (coarse, lucky):
        first, second = figures["standing"]
        assert second - first == figures["gained"] - figures["lost"]
    *_, coarse_line, _ = capsys.readouterr().out.splitlines()
    assert coarse_line.split()[:4] == ["none", "pgd", "bf16", "24"]

    monkeypatch.setattr(evaluate, "main", None)  # nothing is attacked again
    study.main([*command, *few])
