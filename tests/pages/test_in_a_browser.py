"""Pages in a real browser: accessible, readable without JavaScript, and with no request to anywhere."""

import copy

import pytest
import torch
from support.answers import answer_report, shown_of
from support.browser import broken_rules, open_browser
from support.sets import MARGIN
from support.tiny import make_images, make_processor

from hf_pmgaft import RobustnessReport, ZeroShotDataset, compare_reports
from hf_pmgaft.downstream.answer_comparison import compare_answers
from hf_pmgaft.evaluation.examples import Example
from hf_pmgaft.evaluation.report import SetResult
from hf_pmgaft.fingerprints import digest_of_list
from hf_pmgaft.pages import comparison_page, save_answer_comparison_page, save_answer_page, save_report_page


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page with all that pages can have, and those of two and of three reports that are compared."""
    folder = tmp_path_factory.mktemp("pages")
    attack = {**MARGIN, "eps": "4/255", "norm": "linf"}
    protocol = {"attacks": [attack], "headline": "linf 4/255", "verdict": "any iterate"}
    threats = {"linf 4/255": 0.5}
    verdicts = {"sample_id": [0, 1, 2, 3], "clean": [1, 1, 1, 0], "robust": [1, 1, 0, 0]}
    sets = [SetResult(name, 4, 4, 0.75, 0.5, {}, verdicts, threats=threats) for name in ("food", "pets")]
    flag = {"flag": "noise", "set": "food", "message": "random noise fools 3 of 32 images"}
    report = RobustnessReport(protocol, sets, flags=[flag], provenance={"missing": {"cars": "it is gated."}})
    images, masks = torch.rand(2, 3, 24, 32), torch.arange(3).repeat(3, 24, 11)[..., :32]
    names = dict(enumerate(["sky", "cat", "hat"]))
    report.examples = [
        Example("food", 0, "PGD", True, images, "pear", ("pear", "ball")),
        Example("food", 1, "PGD", False, images, "ball"),
        Example("pets", 2, "PGD", False, images, "sky, cat", ("80 %", "60 %"), masks, names),
    ]
    save_report_page(report, folder / "report.html", "tiny")
    write_comparison(report, folder / "comparison.html")
    write_answers(folder)
    return folder


def write_comparison(report, file):
    """Of a report with one that has other images right: of one set there are pictures, of the other one rows."""
    second = copy.deepcopy(report)
    for result in second.sets:
        result.verdicts["robust"] = [0, 1, 1, 0]
    data = ZeroShotDataset(make_images(4), make_processor(), name="food")
    entry = {"sample_ids": digest_of_list(range(4)), "class_names": digest_of_list(data.class_names)}
    reports = {"a": report, "b": second}
    for each in reports.values():
        each.protocol["sets"] = {"food": entry}
    page = comparison_page(reports, compare_reports(*reports.values()), sets={"food": data})
    assert "row 2 of food" in page and "alone: 1 of 4, rows 2." in page
    file.write_text(page, encoding="utf-8")
    page = comparison_page({**reports, "c": second}, compare_reports(*reports.values()), sets={"food": data})
    file.with_name("several.html").write_text(page, encoding="utf-8")


def write_answers(folder):
    towers = ["own tower", "a robust one"]
    report = answer_report(*towers)
    save_answer_page(report, folder / "answers.html", "PGD-2", ["Intervals are 95 %."], shown_of(towers, 2))
    reports = {"a": report, "b": report}
    file = folder / "answer_comparison.html"
    save_answer_comparison_page(reports, compare_answers(report, report), file, "PGD-2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "comparison", "several", "answers", "answer_comparison"])
def test_no_rule_of_axe_is_broken_and_nothing_is_asked_for(browser, folder, name, scheme):
    context = browser.new_context(color_scheme=scheme)
    page, requests = context.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / f"{name}.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert broken_rules(page) == []
    assert [url for url in requests if not url.startswith("data:")] == [(folder / f"{name}.html").as_uri()]
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    context.close()


def test_the_checker_finds_what_is_broken(browser):
    page = browser.new_page()
    page.set_content("<html lang='en'><title>t</title><main><h1>t</h1><img src='data:,'></main></html>")
    assert [rule.partition(":")[0] for rule in broken_rules(page)] == ["image-alt"]


def test_a_page_is_read_without_javascript_and_fits_a_phone(browser, folder):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 640})
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    text = page.inner_text("main")
    assert "75.0 % without an attack" in text and "Random noise fools images" in text
    page.click("text=The whole protocol")
    assert '"headline": "linf 4/255"' in page.inner_text("main")
    assert page.locator("body").bounding_box()["width"] <= 360
    context.close()


def test_folded_parts_are_printed(browser, folder, tmp_path):
    page = browser.new_page()
    page.goto((folder / "report.html").as_uri())
    page.emulate_media(media="print")
    assert page.locator("pre").first.is_visible()
    page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
