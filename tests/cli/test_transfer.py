"""A transfer matrix from the command line: its tables and files, and what it refuses."""

import shutil

import pytest
from support.paths import EMOJI

from hf_pmgaft.cli import transfer
from hf_pmgaft.evaluation import TransferReport

FOOD = ["--eval_sets", f"{EMOJI / 'data'}:food@test", "--prompt_template", "an emoji of {}", "--max_samples", "4"]
MODEL = str(EMOJI / "model")


def test_tables_a_report_and_a_picture_come_out(tmp_path, capsys):
    copy = shutil.copytree(MODEL, tmp_path / "copy")
    radii = ["--eps", "2/255", "4/255", "--attacks", "fgsm", "pgd,num_steps=2"]
    files = ["--output_file", str(tmp_path / "report.json"), "--plots", str(tmp_path)]
    transfer.main(["--models", MODEL, str(copy), *FOOD, *radii, *files, "--format", "markdown"])
    shown = capsys.readouterr().out
    other = f"{tmp_path.name}/copy"
    assert f"| linf 2/255 made on | emoji/model | {other} |" in shown and "| linf 4/255 made on |" in shown
    report = TransferReport.load(tmp_path / "report.json")
    assert report.accuracy("emoji/model", "emoji/model") == report.accuracy("emoji/model", other)
    assert set(report.provenance["models"]) == {"emoji/model", other}
    assert len(report.attacks) == 4 and (tmp_path / "transfer.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", MODEL], "between which nothing transfers"),
        (["--models", MODEL, MODEL], "model twice"),
        (["--models", MODEL, "x", "--max_samples", "0"], "--max_samples=0"),
        (["--models", MODEL, "x", "--output_file", "."], "which is a folder"),
    ],
)
def test_what_cannot_be_compared_ends_with_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        transfer.main([*FOOD, *options])
    assert not any(tmp_path.iterdir())
