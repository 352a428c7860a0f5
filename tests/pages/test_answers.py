"""Pages of what models write under attack: the figures of the JSON, texts beside images, and two reports compared."""

import json
import shutil

import pytest
import torch
from support.answers import answer_report, shown_of
from support.html_pages import Page
from support.paths import EMOJI

from hf_pmgaft.cli import attack_vlm, compare
from hf_pmgaft.downstream.answer_comparison import compare_answers
from hf_pmgaft.pages import save_answer_comparison_page, save_answer_page
from hf_pmgaft.pages.answers import MOST_PICTURES, summary

EVIL = "<script>alert('x')</script>&"
HOW = "PGD-2 in L-inf, 2 images"


def test_figures_are_those_of_the_report_to_the_last_digit(tmp_path):
    report = answer_report("own tower", EVIL)
    save_answer_page(report, tmp_path / "page.html", HOW, [EVIL], shown_of(["own tower", EVIL], 3))
    page = Page(tmp_path / "page.html")
    cells = [cell for tasks in report["towers"].values() for cells in tasks.values() for cell in cells.values()]
    wanted = [value for cell in cells for value in (next(iter(cell.values())), *cell["interval_95"])]
    assert sorted(value for value, _ in page.numbers) == sorted(wanted)
    assert page.text.count(EVIL) >= 4 and HOW in page.text and not page.all("script")
    assert "VQA accuracy x 100" in page.text and report["protocol_hash"] in page.text


def test_images_stand_beside_what_is_written_about_them_and_are_at_most_24(tmp_path):
    towers = [f"tower {number}" for number in range(9)]
    save_answer_page(answer_report(*towers), tmp_path / "page.html", HOW, shown=shown_of(towers, 4))
    page = Page(tmp_path / "page.html")
    pictures = [attrs for attrs in page.all("img") if attrs["alt"].startswith("Side by side")]
    assert len(pictures) == 2 * 9 <= MOST_PICTURES
    assert "Clean: about clean 1. Attacked: nothing." in " ".join(page.text.split())

    many = [f"tower {number}" for number in range(30)]
    save_answer_page(answer_report(*many), tmp_path / "page.html", HOW, shown=shown_of(many, 4))
    pictures = [attrs for attrs in Page(tmp_path / "page.html").all("img") if "class" not in attrs]
    assert len(pictures) == MOST_PICTURES


def test_the_first_task_stands_in_a_sentence_that_says_where_a_stronger_attack_leads():
    report = answer_report("own tower")
    assert summary(report) == (
        "In vqa, VQA accuracy x 100 of a model is 75.0 without an attack and 25.0 at 4/255 through own tower. "
        "A stronger attack can only lower the figures under attack."
    )
    report["protocol"]["tasks"] = {"target 'cat'": report["protocol"]["tasks"]["target 'cat'"]}
    assert "0.0 without an attack and 50.0 at 4/255" in summary(report)
    assert "can only raise the figures under attack" in summary(report)
    report["protocol"]["tasks"] = {"scienceqa": {"figure": "accuracy", "score": "accuracy"}}
    report["towers"]["own tower"]["scienceqa"] = {"clean": {"accuracy": 0.5, "interval_95": [0.4, 0.6]}}
    assert summary(report) == "In scienceqa, accuracy x 100 of a model is 50.0 without an attack through own tower."


def test_two_reports_are_compared_on_a_page(tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for number, file in enumerate(files):
        file.write_text(json.dumps(answer_report("own tower", shift=0.25 * number)))
    compare.main([*map(str, files), "--html", str(tmp_path / "page.html")])
    page = Page(tmp_path / "page.html")
    pairs = compare_answers(*(json.loads(file.read_text()) for file in files)).towers["own tower"]
    wanted = {pair.difference for cells in pairs.values() for pair in cells.values()}
    assert wanted <= {value for value, _ in page.numbers}
    assert "PGD-2 in L-inf, 4 images" in page.text and "two.json minus " in page.text


def test_the_command_writes_the_page_of_its_report(tmp_path, capsys):
    file = tmp_path / "page.html"
    flags = ["--num_images", "2", "--num_steps", "2", "--eps", "0", "4/255", "--tasks", "caption"]
    attack_vlm.main([*flags, "--output_file", str(tmp_path / "out.json"), "--html", str(file)])
    cells = json.loads((tmp_path / "out.json").read_text())["towers"]["own tower"]["caption"]
    page = Page(file)
    assert {cell["chrf"] for cell in cells.values()} <= {value for value, _ in page.numbers}
    assert all(text in page.text for text in cells["clean"]["texts"]) and "PGD-2 in L-inf, 2 images" in page.text
    assert "under attack?" in page.text and str(tmp_path) not in page.text
    assert f"The page is in {file}." in capsys.readouterr().out


@pytest.mark.parametrize("is_compared", [False, True])
def test_pages_are_valid(tmp_path, is_compared):
    html5lib = pytest.importorskip("html5lib")
    report, file = answer_report("own tower", "other"), tmp_path / "page.html"
    if is_compared:
        save_answer_comparison_page({"a": report, "b": report}, compare_answers(report, report), file, HOW)
    else:
        save_answer_page(report, file, HOW, ["a note"], shown_of(["own tower"], 2))
    html5lib.HTMLParser(strict=True).parse(file.read_text(encoding="utf-8"))


def test_a_task_that_is_not_attacked_shows_no_attacked_images(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("hf_pmgaft.pages.save_answer_page", lambda *args: shown.append(args[-1]))
    flags = ["--protocol", "robust_clip", "--tasks", "pope", "--num_images", "1"]
    attack_vlm.main([*flags, "--html", str(tmp_path / "page.html")])
    assert shown == [{}]


def test_large_images_stay_below_3_mb(tmp_path):
    shown = {"own tower": (torch.rand(2, 24, 3, 336, 336), [["a text"] * 24] * 2)}
    save_answer_page(answer_report("own tower"), tmp_path / "page.html", HOW, shown=shown)
    assert (tmp_path / "page.html").stat().st_size < 3_000_000


def test_a_page_names_a_model_in_a_folder_by_its_last_part(tmp_path, monkeypatch):
    reports = []
    monkeypatch.setattr("hf_pmgaft.pages.save_answer_page", lambda report, *args: reports.append(report))
    shutil.copytree(EMOJI / "llava", tmp_path / "mine")
    flags = ["--model", str(tmp_path / "mine"), "--num_images", "1", "--num_steps", "2", "--tasks", "caption"]
    attack_vlm.main([*flags, "--html", str(tmp_path / "page.html")])
    assert reports[0]["model"] == "mine"
