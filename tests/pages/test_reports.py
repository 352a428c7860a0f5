"""Pages of reports: the figures of the JSON, pictures, words, and no markup from names."""

import base64
import copy
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.emoji import PGD
from support.emoji import make_data as make_captioned
from support.html_pages import Page
from support.masked import NAMES, make_masked
from support.paths import ROOT
from support.sets import MARGIN, make_data
from support.tiny import fit_model, make_images

from hf_pmgaft import RobustnessReport, SegmentationDataset, ZeroShotDataset, compare_reports, evaluate_robustness
from hf_pmgaft.evaluation.examples import Example
from hf_pmgaft.evaluation.report import SetResult
from hf_pmgaft.pages import comparison_page, save_comparison_page, save_report_page
from hf_pmgaft.pages.disagreements import shown_disagreements
from hf_pmgaft.pages.words import FLAGS

EVIL = "<script>alert('x')</script>&"
ATTACKS = [{**MARGIN, "eps": eps} for eps in ("20/255", "12/255")]
JPEG = {"attack": "corruption", "kind": "jpeg", "severity": 2}
MOST_BYTES = 3_000_000


def run(pair, data, attacks=ATTACKS, **options) -> RobustnessReport:
    options = {"progress": False, "probes": False, "examples": 6, **options}
    return evaluate_robustness(*pair, [data], attacks, **options)


@pytest.fixture(scope="module")
def pair():
    return fit_model()


@pytest.fixture(scope="module")
def report(pair) -> RobustnessReport:
    return run(pair, make_data(pair[1]), [*ATTACKS, JPEG], eight_bit=True)


@pytest.fixture
def page(report, tmp_path) -> Page:
    save_report_page(report, tmp_path / "report.html", "tiny")
    return Page(tmp_path / "report.html")


def write(report: RobustnessReport, folder: Path, name: str = "tiny") -> Page:
    save_report_page(report, folder / "report.html", name)
    return Page(folder / "report.html")


def floats(value) -> set[float]:
    """All fractions in what JSON holds."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(floats, value))
    return {value} if isinstance(value, float) else set()


# ---- Figures ----


def test_figures_are_those_of_the_json_to_the_last_digit(report, page):
    stored = json.loads(json.dumps(report.to_dict()))
    (result,) = stored["sets"]
    wanted = {result["clean_accuracy"], result["robust_accuracy"], result["robust_8bit_accuracy"]}
    wanted |= {*result["robust_interval_95"], *result["threats"].values(), *result["attacks"].values()}
    values = {value for value, _ in page.numbers}
    assert len(wanted) >= 5 and wanted <= values

    # What is shown beside them: the intervals that the JSON does not hold, and nothing else.
    intervals = {
        end for key in ("clean", *result["threats"], *result["attacks"]) for end in report.sets[0].interval(key)
    }
    assert values <= floats(stored["sets"]) | intervals
    assert all(float(text) == round(100 * value, 1) for value, text in page.numbers)


def test_a_page_of_the_stored_report_has_the_same_figures_and_no_images(report, page, tmp_path):
    report.save(tmp_path / "report.json")
    again = write(RobustnessReport.load(tmp_path / "report.json"), tmp_path)
    assert again.numbers == page.numbers and "Images that fell" not in again.text
    assert report.protocol_hash in again.text and '"verdict"' in again.text


def test_every_set_has_a_table_with_an_interval_for_each_threat(page):
    text = page.text[page.text.index("Each set") : page.text.index("What each attack left")]
    assert "worst case, linf 20/255" in text and "worst case, linf 12/255" in text and "rounded to 8 bits" in text
    assert (
        len(re.findall(r"\d to \d", text)) == 1 + 2 + 2 + 1
    )  # without an attack, two threats, two attacks, a corruption


# ---- Words ----


def test_the_first_paragraph_says_it_in_a_sentence(report, page):
    clean, robust = (100 * value for value in (report.mean_clean_accuracy, report.mean_robust_accuracy))
    wanted = f"Zero-shot accuracy of tiny is {clean:.1f} % without an attack, and {robust:.1f} % under PGD-10 margin"
    assert wanted in page.text and "A stronger attack can only lower" in page.text
    assert page.all("title") and page.text.strip().startswith("How robust is tiny?")


def test_every_flag_that_there_is_has_a_meaning():
    source = (ROOT / "hf_pmgaft/evaluation/sanity.py").read_text()
    assert set(re.findall(r'_flag\("([^"]+)"', source)) == set(FLAGS)


def test_flags_stand_first_and_in_plain_words(report, tmp_path):
    flagged = RobustnessReport.load(saved(report, tmp_path))
    flagged.flags = [{"flag": "noise", "set": "own", "message": "random noise in the ball fools 3 of 32 images"}]
    text = write(flagged, tmp_path).text
    assert "No flag was raised" not in text and text.index("Do not believe") < text.index("Figures")
    assert "fools 3 of 32 images. Random noise fools images that the attack did not." in text


def saved(report: RobustnessReport, folder: Path) -> Path:
    report.save(folder / "saved.json")
    return folder / "saved.json"


def test_names_and_messages_are_text_and_never_markup(tmp_path):
    results = {f"linf 4/255{EVIL}": 0.25}
    result = SetResult(EVIL, 4, 40, 0.5, 0.25, results, threats={"linf 4/255": 0.25})
    report = RobustnessReport(
        {
            "attacks": [{**MARGIN, "eps": "4/255", "norm": "linf"}],
            "headline": "linf 4/255",
            "verdict": EVIL,
            "sets": {},
        },
        [result],
        model={"fingerprint": EVIL},
        flags=[{"flag": EVIL, "set": EVIL, "message": EVIL}],
        provenance={"missing": {EVIL: EVIL}},
    )
    images = torch.rand(2, 3, 8, 8)
    report.examples = [Example(EVIL, 3, EVIL, True, images, EVIL, (EVIL, EVIL), class_names={0: EVIL})]
    page = write(report, tmp_path, name=EVIL)
    assert page.all("script") == [] and page.text.count(EVIL) > 12


# ---- Images ----


def test_examples_stand_under_what_became_of_them(report, page):
    fell, stood = (page.text.split(title)[1] for title in ("Fell\n", "Stood\n"))
    fell = fell[: fell.index("Stood\n")]
    for example in report.examples:
        caption = f"{example.truth} (own, row {example.row})"
        assert (caption in fell, caption in stood) == (example.fell, not example.fell)
        assert f"Attacked: {example.said[1]}." in page.text
    assert len(page.all("img")) == 2 + len(report.examples) == 8  # bars and a curve
    assert all(attrs["alt"] and attrs["src"].startswith("data:image/") for attrs in page.all("img"))


def test_a_segmented_set_shows_masks_with_the_names_of_their_colours(pair, tmp_path):
    data = SegmentationDataset(make_masked(2), pair[1], NAMES, ["a {}"], name="scenes")
    report = run(pair, data, ["pgd,eps=8/255,num_steps=2,loss=masked_ce"])
    page = write(report, tmp_path)
    assert "imagemaskseen cleanseen attacked" in page.text and "of the pixels right" in page.text
    names = {name for example in report.examples for name in example.class_names.values()}
    assert "background" in names and all(name in page.text for name in names)
    assert "IoU of scenes" in page.text and "background" in page.text


def test_captioned_sets_show_texts(emoji, tmp_path):
    report = run(emoji, make_captioned(emoji[1], 12), [PGD], max_samples=None)
    page = write(report, tmp_path)
    assert "Recall of tiny" in page.text and "(mean of 6 figures)" in page.text and "I2T R@1" in page.text
    assert all(f"Clean: {example.said[0]}." in page.text for example in report.examples)


@pytest.fixture(scope="module")
def emoji():
    from support.emoji import make_emoji

    return make_emoji()


def test_24_large_images_and_16_sets_are_below_3_mb(report, tmp_path):
    torch.manual_seed(0)
    result = report.sets[0]
    many = [SetResult.stored({**result.to_dict(), "name": f"set {number}"}) for number in range(16)]
    large = RobustnessReport(report.protocol, many)
    noise = [torch.rand(2, 3, 336, 448) for _ in range(24)]
    large.examples = [
        Example("set 0", row, "attack", row % 2 == 0, images, "truth", ("a", "b")) for row, images in enumerate(noise)
    ]
    write(large, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < MOST_BYTES


# ---- Comparisons ----


def test_a_comparison_has_both_reports_and_their_differences(report, pair, tmp_path):
    shaken = copy.deepcopy(pair[0])
    with torch.no_grad():
        shaken.visual_projection.weight.add_(0.3 * torch.randn_like(shaken.visual_projection.weight))
    other = run((shaken, pair[1]), make_data(pair[1]), [*ATTACKS, JPEG], eight_bit=True)
    comparison = compare_reports(report, other)
    save_comparison_page({EVIL: report, "after": other}, comparison, tmp_path / "both.html")
    page = Page(tmp_path / "both.html")
    values = {value for value, _ in page.numbers}
    for pairs in comparison.to_dict()["sets"].values():
        for pair_of_key in pairs.values():
            assert {pair_of_key["difference"], *pair_of_key["interval"], pair_of_key["p_value"]} <= values
    assert {value for means in comparison.means.values() for value in means} <= values
    for each in (report, other):
        assert {each.sets[0].clean_accuracy, *each.sets[0].robust_interval} <= values
    assert "after is ahead of <script>" in page.text and page.all("script") == []
    assert len(page.all("img")) == 3  # bars, a curve, and clean against robust


def test_several_reports_stand_side_by_side_and_two_of_them_are_compared(two, tmp_path):
    reports = {"a": two["one"], EVIL: two["two"], "c": two["one"]}
    comparison = compare_reports(two["two"], two["one"])
    text = comparison_page(reports, comparison, pair=(EVIL, "c"))
    (tmp_path / "several.html").write_text(text, encoding="utf-8")
    page = Page(tmp_path / "several.html")
    values = {value for value, _ in page.numbers}
    for report in reports.values():
        assert {report.mean_clean_accuracy, report.mean_robust_accuracy} <= values
        for result in report.sets:
            assert {result.robust_accuracy, *result.interval("clean"), *result.robust_interval} <= values
    assert all(f"accuracy of {name} is " in page.text for name in reports)
    assert f"c is ahead of {EVIL}" in page.text and f"In points, c minus {EVIL}" in page.text
    assert page.all("script") == [] and len(page.all("img")) == 3

    reports["c"] = copy.deepcopy(two["one"])
    reports["c"].sets.pop()
    with pytest.raises(ValueError, match="The reports 'a' and 'c' differ in their sets"):
        comparison_page(reports, comparison, pair=("a", EVIL))


# ---- Images that one model alone has right ----


@pytest.fixture(scope="module")
def two(pair) -> dict[str, RobustnessReport]:
    """Reports of a model and of a worse one, of 30 images each of two sets."""
    shaken = copy.deepcopy(pair[0])
    torch.manual_seed(0)
    with torch.no_grad():
        shaken.visual_projection.weight.add_(10 * torch.randn_like(shaken.visual_projection.weight))
    sets = sets_at_hand(pair[1])
    models = {"one": pair[0], "two": shaken}
    options = {"progress": False, "probes": False, "max_samples": 30}
    return {name: evaluate_robustness(model, pair[1], sets, ATTACKS[:1], **options) for name, model in models.items()}


def sets_at_hand(processor, seed=9) -> dict[str, ZeroShotDataset]:
    options = {"prompt_templates": "a photo of the {}"}
    return {name: ZeroShotDataset(make_images(40, seed), processor, name=name, **options) for name in ("own", "other")}


def wanted_rows(two, key) -> set[tuple[str, int]]:
    """By set the rows that one model alone has right."""
    rows = set()
    for a, b in zip(two["one"].sets, two["two"].sets, strict=True):
        columns = zip(a.verdicts["sample_id"], a.verdicts[key], b.verdicts[key], strict=True)
        rows |= {(a.name, row) for row, first, second in columns if first != second}
    return rows


@pytest.fixture
def without_charts(monkeypatch):
    """Charts take seconds, and are looked at elsewhere."""
    monkeypatch.setattr("hf_pmgaft.pages.reports.charts_of", lambda reports: [])


@pytest.mark.parametrize("key", ["clean", "robust"])
def test_a_comparison_shows_the_images_that_one_model_alone_has_right(without_charts, two, pair, tmp_path, key):
    sets = sets_at_hand(pair[1])
    page = write_comparison(two, tmp_path, key, sets)
    pictures = {attrs["alt"].split(", ")[1]: attrs["src"] for attrs in page.all("img")}
    wanted = {f"row {row} of {name}" for name, row in wanted_rows(two, key)}
    assert 4 < len(wanted) and set(pictures) <= wanted
    assert len(pictures) == len(page.all("img")) == min(24, len(wanted)) and "Without pictures" not in page.text
    assert ("Right without an attack" in page.text) == (key == "clean")

    name, row = min(wanted_rows(two, key))
    image = Image.open(io.BytesIO(base64.b64decode(pictures[f"row {row} of {name}"].partition(",")[2])))
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(levels, (sets[name][row]["images"] * 255).round().byte())


def test_rows_stand_in_place_of_images_of_other_sets_and_nothing_that_a_report_names_is_opened(
    without_charts, two, pair, tmp_path, monkeypatch
):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("a set was opened"))
    reports = copy.deepcopy(two)
    for report in reports.values():
        report.provenance["sets"] = {"other": {"path": str(tmp_path), "name": "user/other"}}
    page = write_comparison(reports, tmp_path, "robust", {"own": sets_at_hand(pair[1], seed=1)["own"]})
    assert "Without pictures: the set 'own' here has other images than the report's" in page.text
    assert "Without pictures: the set 'other' is not at hand here." in page.text and page.all("img") == []
    listed = [int(row) for line in re.findall(r", rows ([\d, ]+)\.", page.text) for row in line.split(", ")]
    assert sorted(listed) == sorted(row for _, row in wanted_rows(two, "robust"))

    # Where no set was looked for, none is missed.
    assert "Without pictures" not in write_comparison(reports, tmp_path).text


def test_where_models_agree_there_is_nothing_to_show_and_no_set_is_missed(two):
    shown = shown_disagreements({"one": two["one"], "same": two["one"]}, "robust", sets={})
    assert [(each.reason, [side.rows for side in each.sides]) for each in shown] == [(None, [[], []])] * 2


def test_pictures_are_shared_out_among_sets_and_the_rest_are_numbers(two, pair):
    sets = sets_at_hand(pair[1])
    shown = shown_disagreements(two, "robust", sets, most=3)
    counts = [len(side.pictures) for each in shown for side in each.sides]
    assert sum(counts) == 3 and max(counts) <= 2
    for side in (side for each in shown for side in each.sides):
        numbers = [int(number) for number in side.numbers.split(", ") if number]
        assert numbers == side.rows[len(side.pictures) :]


def write_comparison(two, folder: Path, *options) -> Page:
    text = comparison_page(two, compare_reports(*two.values()), *options)
    (folder / "both.html").write_text(text, encoding="utf-8")
    return Page(folder / "both.html")


# ---- Form ----


def test_nothing_is_fetched_and_nothing_runs(page):
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            assert not name.startswith("on") and name != "href", (tag, attrs)
            assert name not in ("src", "srcset") or value.startswith("data:")
    assert page.all("script") == page.all("link") == page.all("iframe") == []


def test_headings_are_in_order_and_tables_have_headers(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.all("html") == [{"lang": "en"}]
    assert all(attrs["scope"] in ("col", "row") for attrs in page.all("th")) and page.all("table")


def test_the_protocol_is_folded(page):
    assert len(page.all("details")) == 3 and all("open" not in attrs for attrs in page.all("details"))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_pages_are_valid(report, tmp_path, number):
    html5lib = pytest.importorskip("html5lib")
    if number > 1:
        reports = {f"model {each}": report for each in range(number)}
        save_comparison_page(reports, compare_reports(report, report), tmp_path / "report.html")
    else:
        save_report_page(report, tmp_path / "report.html", "tiny")
    html5lib.HTMLParser(strict=True).parse((tmp_path / "report.html").read_text(encoding="utf-8"))
