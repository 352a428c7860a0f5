"""Certificates from the command line: its tables and files, further lists, and what it refuses."""

import pytest
from support.paths import EMOJI

from hf_pmgaft.cli import certify
from hf_pmgaft.evaluation import CertificateReport

FOOD = ["--eval_sets", f"{EMOJI / 'data'}:food@test", "--max_samples", "3"]
QUICK = [*FOOD, "--sigma", "0.02", "--draws", "20", "--selection", "5"]


def test_tables_files_and_a_picture_come_out(tmp_path, capsys):
    attacks = ["--attacks", "fgsm,attacker=through", "--radii", "0", "0.01", "--verdict_draws", "5", "--eot", "1"]
    files = [
        "--output_file",
        f"{tmp_path / 'c.json'}",
        "--plots",
        f"{tmp_path}",
        "--verdict_file",
        f"{tmp_path / 'v'}",
    ]
    certify.main([*QUICK, "--prompt_template", "an emoji of {}", *attacks, *files, "--format", "markdown"])
    shown = capsys.readouterr().out
    assert "| food | 0.02 | 3 |" in shown and "| certified 0.01 |" in shown and "at most" in shown
    assert "confidence of 99.9 %" in shown
    report = CertificateReport.load(tmp_path / "c.json")
    assert report.protocol["radii"] == ["0", "0.01"] and list(report.sets[0].empirical) == ["0", "0.01"]
    assert report.provenance["model"] and report.provenance["sets"]["food"]["split"] == "test"
    assert (tmp_path / "certified.png").exists() and (tmp_path / "v").exists()


def test_each_template_and_list_is_judged_by_itself_under_its_name(tmp_path, capsys):
    for name in ("long", "other"):
        names = [f"{name} {number}" for number in range(150)]
        (tmp_path / f"{name}.txt").write_text("\n".join(names) + "\n")
    lists = ["--class_lists", *(str(tmp_path / f"{name}.txt") for name in ("long", "other"))]
    output = ["--output_file", str(tmp_path / "c.json")]
    certify.main([*QUICK, *lists, "--prompt_template", "a {}", "{}", "--attacks", "none", *output])
    names = [each.name for each in CertificateReport.load(tmp_path / "c.json").sets]
    assert names == ["food [long, a {}]", "food [long, {}]", "food [other, a {}]", "food [other, {}]"]
    assert "at most" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draws", "9"], "Pass draws from 10"),
        (["--sigma", "64"], "write 64/255"),
        (["--attacks", "pgd,eps=4/255"], "Leave that out"),
        (["--max_samples", "0"], "--max_samples=0"),
        (["--class_lists", "x.txt", "--eval_class_names", "x.txt"], "Pass one"),
        (["--output_file", "."], "which is a folder"),
    ],
)
def test_what_cannot_be_certified_ends_with_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        certify.main([*QUICK, *options])
    assert not any(tmp_path.iterdir())
