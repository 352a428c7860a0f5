"""Files that visitors drop as reports: shown, or refused in a sentence, whatever stands in them."""

import copy
import json
import random

import pytest
from support.sets import MARGIN, make_data
from support.tiny import fit_model, make_images

from hf_pmgaft import RobustnessReport, ZeroShotDataset, evaluate_robustness
from hf_pmgaft.demo.report_files import check_shape, in_a_frame, keys_of, page_of, read_reports

MOST = 1_000_000


@pytest.fixture(scope="module")
def report(processor) -> RobustnessReport:
    model, _ = fit_model()
    return evaluate_robustness(model, processor, [make_data(processor)], [MARGIN], progress=False, probes=False)


@pytest.fixture(autouse=True)
def without_charts(monkeypatch):
    """Charts take seconds, and are looked at elsewhere."""
    monkeypatch.setattr("hf_pmgaft.pages.reports.charts_of", lambda reports: [])


@pytest.fixture
def folder(tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    return uploads


def dropped(folder, content, name="mine.json") -> dict:
    """What Gradio hands on of a file."""
    file = folder / str(len(list(folder.iterdir())))
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return {"path": str(file), "orig_name": name}


# ---- Which files ----


def test_reports_go_by_the_names_of_their_files(report, folder):
    values = [dropped(folder, report.to_dict(), name) for name in ("a/mine.json", "c:\\b\\mine.json", "mine")]
    reports = read_reports(values, folder, MOST)
    assert list(reports) == ["mine", "mine (2)", "mine (3)"]
    assert all(each.to_dict() == report.to_dict() for each in reports.values())


def test_nothing_outside_the_folder_of_uploads_is_read(report, folder, tmp_path):
    report.save(tmp_path / "secret.json")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    for place in (tmp_path / "secret.json", folder / ".." / "secret.json", folder / "link.json", folder, "", None, 7):
        value = {"path": place if place is None or place == 7 else str(place), "orig_name": "secret.json"}
        with pytest.raises(ValueError, match="is here no more") as error:
            read_reports([value], folder, MOST)
        assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("values", [None, [], "text", [7, None]])
def test_without_a_file_there_is_an_error(values, folder):
    with pytest.raises(ValueError, match="There is no report. Drop the JSON file"):
        read_reports(values, folder, MOST)


def test_more_than_ten_and_large_ones_are_refused(report, folder):
    value = dropped(folder, report.to_dict())
    with pytest.raises(ValueError, match="You passed 11 reports. Pass one to look at, or up to 10 to compare"):
        read_reports([value] * 11, folder, MOST)
    assert len(read_reports([value] * 10, folder, MOST)) == 10
    size = len(json.dumps(report.to_dict()))
    with pytest.raises(ValueError, match=f"The reports have more than {2 * size:,} bytes together. Pass fewer"):
        read_reports([value] * 3, folder, size)
    with pytest.raises(ValueError, match=r"mine has [\d,]+ bytes. At most 100 are read"):
        read_reports([value], folder, 100)


JUNK = {
    "no JSON": b"# A card",
    "binary": b"\x89PNG\r\n\x1a\n\x00",
    "brackets": b"[" * 50_000,
    "a list": [],
    "a number": 7,
    "sets that are none": {"sets": 7, "protocol": {}, "protocol_hash": "x"},
    "a set that is none": {"sets": [7], "protocol": {}, "protocol_hash": "x"},
    "another report": {"rows": []},
}


@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK)
def test_what_is_no_report_is_refused_by_the_package_and_without_a_path(content, folder):
    with pytest.raises(ValueError, match="^mine is no whole robustness report") as error:
        read_reports([dropped(folder, content)], folder, MOST)
    assert str(folder) not in str(error.value)


# ---- How much ----


def with_sets(report, sets) -> bytes:
    return json.dumps({**report.to_dict(), "sets": sets}).encode()


def test_what_a_page_has_no_time_for_is_refused_before_it_is_computed(report):
    content = copy.deepcopy(report.to_dict())
    (own,) = content["sets"]
    check_shape(json.dumps(content).encode(), "mine")
    pixels = {**own, "figure": "mIoU", "verdicts": {"clean": [[[number, 1, 1]] for number in range(2000)]}}
    many = {**own, "figure": "pixel accuracy", "verdicts": {"clean": [[1, 2]] * 301_000}}
    cases = {
        "201 rows of sets": [own] * 201,
        "22 kinds of figures": [{**own, "figure": f"I2T R@{k}"} for k in range(1, 23)],
        "200,001 images in a set": [{**own, "verdicts": {"clean": [1] * 200_001}}],
        "300 characters in the name": [{**own, "name": "x" * 300}],
        "301,000 counts of pixels": [{**many, "verdicts": {k: [[1, 2]] * 150_500 for k in ("clean", "robust")}}],
        "4,000,000 images of a set times its classes": [pixels],
    }
    for message, sets in cases.items():
        with pytest.raises(ValueError, match=f"^mine has {message}"):
            check_shape(with_sets(report, sets), "mine")
    content["protocol"]["attacks"] *= 201
    with pytest.raises(ValueError, match="^mine has 201 attacks. At most 200 are shown"):
        check_shape(json.dumps(content).encode(), "mine")


def test_of_many_reports_each_may_have_less(report):
    (own,) = report.to_dict()["sets"]
    content = with_sets(report, [own] * 41)
    check_shape(content, "mine", 2)
    with pytest.raises(ValueError, match="^mine has 41 rows of sets. At most 40 are shown of each of 10 reports"):
        check_shape(content, "mine", 10)


# ---- What is shown ----


def test_one_report_is_shown_by_the_page_of_the_package(report):
    page = page_of({"mine": report})
    assert "How robust is mine?" in page and f"{100 * report.mean_clean_accuracy:.1f} % without an attack" in page
    named = copy.deepcopy(report)
    named.provenance["model"] = {"name": "user/clip"}
    assert "How robust is user/clip?" in page_of({"mine": named})


def test_two_are_compared_with_pictures_of_the_reading_that_is_the_report_s(report, processor):
    other = copy.deepcopy(report)
    (result,) = other.sets
    result.verdicts["robust"] = [1 - right for right in result.verdicts["robust"]]
    others = ZeroShotDataset(make_images(40, seed=1), processor, None, "a photo of the {}", name="own")
    page = page_of({"a": report, "b": other}, sets={"own": [others, make_data(processor)]})
    assert page.count('alt="') == 24 and "Without pictures" not in page
    page = page_of({"a": report, "b": other}, sets={"own": [others]})
    assert page.count('alt="') == 0 and "has other images than the report" in page
    assert "is not at hand here" in page_of({"a": report, "b": other})


def test_of_several_the_pair_is_compared_and_another_protocol_is_named(report, processor):
    other = copy.deepcopy(report)
    (result,) = other.sets
    result.verdicts["robust"] = [1 - right for right in result.verdicts["robust"]]
    reports, sets = {"a": report, "b": report, "c": other}, {"own": [make_data(processor)]}
    assert page_of(reports, sets=sets).count('alt="') == 0
    page = page_of(reports, sets=sets, pair=("c", "b"))
    assert page.count('alt="') == 24 and "b is ahead of c" in page
    other.protocol["seed"] = 7
    with pytest.raises(ValueError, match="The reports 'a' and 'c' follow .* they differ in seed. Evaluate"):
        page_of(reports)
    assert "a, b and c" in page_of(reports, ignore=["seed"])


def test_keys_that_may_differ_are_passed_on(report):
    other = copy.deepcopy(report)
    other.protocol["versions"]["torch"] = "1.0"
    with pytest.raises(ValueError, match="they differ in versions.torch"):
        page_of({"a": report, "b": other})
    assert "a and b" in page_of({"a": report, "b": other}, ignore=["versions.torch"])
    assert keys_of({"a": report, "b": other}) == ["robust", "clean", "PGD-10 margin linf 20/255"]


def test_whatever_stands_in_a_report_it_is_shown_or_refused_in_a_sentence(report, folder):
    """Parts of a report in place of others, at random: the hash is right, since anybody can write one."""
    rng = random.Random(0)
    whole = report.to_dict()
    values = [
        None,
        7,
        -1,
        "text",
        [],
        {},
        [[]],
        {"a": {}},
        10**400,
        True,
        "<script>",
        whole["sets"],
        whole["protocol"],
    ]
    outcomes = {"shown": 0, "refused": 0}

    for _ in range(80):
        content = copy.deepcopy(whole)
        for _ in range(rng.choice([1, 1, 2])):
            spoil(content, rng, copy.deepcopy(rng.choice(values)))
        spoiled = RobustnessReport(content.get("protocol"), [])
        content["protocol_hash"] = spoiled.protocol_hash

        try:
            reports = read_reports([dropped(folder, content)], folder, MOST)
            page = page_of(reports)
            page_of({**reports, "other": report}, ignore=list(report.protocol))
            page_of({"one": report, "other": report, **reports}, ignore=list(report.protocol))
            outcomes["shown"] += 1
            assert "<script>" not in page
        except ValueError as error:
            outcomes["refused"] += 1
            assert str(folder) not in str(error)

    assert min(outcomes.values()) > 10


def spoil(content, rng, value) -> None:
    """Puts a value in some place of a report."""
    while isinstance(content, (dict, list)) and content:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = rng.choice(list(keys))
        if rng.random() < 0.35 or not isinstance(content[key], (dict, list)) or not content[key]:
            content[key] = value
            return
        content = content[key]


def test_a_frame_lets_nothing_of_a_page_out():
    frame = in_a_frame("<p onclick='x'>\"{{value}} ${value}</p>", '"><script>')
    assert frame.count("<") == 2 and frame.count(">") == 2 and 'sandbox=""' in frame and "<script" not in frame
