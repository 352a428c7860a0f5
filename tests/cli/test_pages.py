"""Reports as pages, as a user asks for them: of an evaluation, of a stored report, and of two that are compared."""

import json

import pytest
from support.html_pages import Page
from support.paths import EXAMPLES

from hf_pmgaft.cli import compare, evaluate
from hf_pmgaft.evaluation.report import RobustnessReport

DATA = EXAMPLES / "emoji" / "data"
FGSM = ["--eval_sets", f"{DATA}:activities", "--prompt_template", "an emoji of {}", "--max_samples", "12"]
FGSM += ["--attacks", "fgsm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Has the report of an evaluation and its page."""
    folder = tmp_path_factory.mktemp("pages")
    evaluate.main([*FGSM, "--output_file", str(folder / "report.json"), "--html", str(folder / "report.html")])
    return folder


def test_an_evaluation_writes_a_page_with_its_figures_and_images(folder):
    page = Page(folder / "report.html")
    (result,) = RobustnessReport.load(folder / "report.json").sets
    values = {value for value, _ in page.numbers}
    assert {result.clean_accuracy, result.robust_accuracy, *result.robust_interval} <= values
    assert "How robust is model?" in page.text and "Images that fell" in page.text
    # Those that are right, of 12, beside bars and a curve.
    assert len(page.all("img")) == 2 + sum(result.verdicts["clean"])


def test_a_stored_report_becomes_a_page_without_an_evaluation(folder, tmp_path, capsys):
    evaluate.main(["--report", str(folder / "report.json"), "--html", str(tmp_path / "again.html")])
    again = Page(tmp_path / "again.html")
    assert again.numbers == Page(folder / "report.html").numbers and len(again.all("img")) == 2
    assert "How robust is model?" in again.text and str(tmp_path / "again.html") in capsys.readouterr().out


@pytest.mark.parametrize("command", [compare.main, lambda argv: evaluate.main(["--compare", *argv])])
def test_a_comparison_becomes_a_page(folder, tmp_path, command):
    other = tmp_path / "other.json"
    other.write_text((folder / "report.json").read_text())
    command([str(folder / "report.json"), str(other), "--html", str(tmp_path / "both.html")])
    page = Page(tmp_path / "both.html")
    assert "other.json is ahead of" in page.text and str(tmp_path.parent) not in page.text
    assert 0.0 in {value for value, _ in page.numbers}


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_computed(folder, tmp_path):
    with pytest.raises(SystemExit, match="--html .* is a folder"):
        evaluate.main([*FGSM, "--html", str(tmp_path)])
    reports = [str(folder / "report.json"), str(folder / "other.json")]
    with pytest.raises(SystemExit, match="--html .* is one of the reports"):
        compare.main([*reports, "--html", reports[0]])
    assert json.loads((folder / "report.json").read_text())


def test_a_report_that_goes_nowhere_is_refused(folder):
    with pytest.raises(SystemExit, match="You passed --report without --update_card or --html"):
        evaluate.main(["--report", str(folder / "report.json")])
