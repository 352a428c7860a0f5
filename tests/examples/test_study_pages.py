"""Results as parts of a page: of the JSON beside them, sorted by a click, and put into the documentation."""

import json
import re
import runpy

import costs
import leaderboard as board
import pytest
from study_pages import Point, number, study_part
from support.browser import open_browser
from support.html_pages import Page
from support.paths import ROOT

RESULTS = ROOT / "examples/studies/results"
ROWS = [
    ["method", "rank", "clean"],
    ["no <b>", number(2, style="d"), number(84.56)],
    ["FARE", number(1, style="d"), number(9.04, 0.31)],
    ["TeCoA", number(10, style="d"), number(80.0, 1.0)],
]
POINTS = {"no <b>": Point(84.56, 16.7), "FARE": Point(9.04, 44.9, 3.0, 1.0), "TeCoA": Point(80.0, 36.0)}


@pytest.fixture
def part(tmp_path):
    """The file of a part, as it stands in a page of the documentation."""
    body = study_part(ROWS, POINTS, "clean in %", "robust in %")
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title></head>'
    (tmp_path / "part.html").write_text(f"{head}<body><main><h1>t</h1>{body}</main></body></html>", encoding="utf-8")
    return tmp_path / "part.html"


def stored(name: str):
    return json.loads((RESULTS / f"{name}.json").read_text())


# ---- Of the JSON ----


def test_the_leaderboard_is_that_of_its_json(tmp_path):
    rows = stored("leaderboard")["rows"]
    assert (RESULTS / "leaderboard.html").read_text() == board.page(rows, ("autoattack", "clean", "shift"))
    values = {value for value, _ in Page(RESULTS / "leaderboard.html").numbers}
    assert len(rows) > 20
    assert all({row["autoattack"], row["clean"], row["shift"]} <= values for row in rows.values())


@pytest.mark.parametrize("result", ["costs", "costs_stronger"])
def test_costs_are_those_of_their_json(result):
    figures, titles = (
        stored(result)["figures"],
        {"none": "none", "tecoa": "TeCoA", "pmg_aft": "PMG-AFT", "fare": "FARE"},
    )
    assert (RESULTS / f"{result}.html").read_text() == costs.page(figures, titles)
    values = {value for value, _ in Page(RESULTS / f"{result}.html").numbers}
    means = {cell["mean"] for task in figures.values() for of_methods in task.values() for cell in of_methods.values()}
    assert means <= values and "success" not in "".join(names(RESULTS / f"{result}.html"))


def names(file) -> list[str]:
    """What points say of themselves."""
    return re.findall("<title>(.*?)</title>", file.read_text())


# ---- What stands in a part ----


def test_points_are_named_and_where_the_axes_say(part):
    page = Page(part)
    assert names(part)[1:] == ["no &lt;b&gt;: 84.6, 16.7", "FARE: 9.0, 44.9", "TeCoA: 80.0, 36.0"]
    assert page.all("b") == []

    # From the marks of the axes to the points, by hand
    ticks = re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">([\d.]+)</text>', part.read_text())
    places = {float(tick): float(x) for x, tick in ticks}
    (low, left), (high, right) = min(places.items()), max(places.items())
    x_of = {name: left + (point.x - low) / (high - low) * (right - left) for name, point in POINTS.items()}
    circles = [float(attrs["cx"]) for attrs in page.all("circle")]
    assert circles == pytest.approx(list(x_of.values()), abs=0.11)
    assert low <= 9.04 and high >= 84.56

    # Whiskers are as long as the spread
    whiskers = [attrs for attrs in page.all("line") if attrs["class"] == "whisker"][2]
    half = (float(whiskers["x2"]) - float(whiskers["x1"])) / 2
    assert half == pytest.approx(3.0 * (right - left) / (high - low), abs=0.11)


def test_a_point_higher_up_is_a_better_one(part):
    page = Page(part)
    heights = [float(attrs["cy"]) for attrs in page.all("circle")]
    assert heights[1] < heights[2] < heights[0]


def test_a_part_links_to_nothing(part):
    assert "http" not in part.read_text() and Page(part).all("a") == Page(part).all("link") == []


def test_a_click_sorts_by_the_exact_numbers_and_another_turns_it_round(part):
    def first_column() -> list[str]:
        return page.locator("tbody th").all_inner_texts()

    with open_browser() as browser:
        page = browser.new_page()
        page.goto(part.as_uri())
        assert first_column() == ["no <b>", "FARE", "TeCoA"]
        page.click("thead button:has-text('clean')")
        assert first_column() == ["no <b>", "TeCoA", "FARE"]
        page.click("thead button:has-text('clean')")
        assert first_column() == ["FARE", "TeCoA", "no <b>"]
        assert page.get_attribute("thead th:nth-child(3)", "aria-sort") == "ascending"
        page.click("thead button:has-text('method')")
        assert first_column() == ["FARE", "no <b>", "TeCoA"]
        page.focus("thead button:has-text('rank')")
        page.keyboard.press("Enter")
        assert first_column() == ["TeCoA", "no <b>", "FARE"]


# ---- In the documentation ----


@pytest.mark.parametrize(
    ("name", "result"), [("which_method", "leaderboard"), ("cost", "costs"), ("stronger_attack", "costs_stronger")]
)
def test_the_documentation_has_the_part_in_place_of_what_github_shows(name, result):
    put_parts_in = runpy.run_path(str(ROOT / "docs/conf.py"))["put_parts_in"]
    page = ROOT / f"docs/results/{name}.md"
    source = [page.read_text(encoding="utf-8")]
    put_parts_in(None, name, source)
    (file,) = re.findall(r"^```\{raw\} html\n:file: (\S+)\n```$", source[0], re.M)
    assert (page.parent / file).resolve() == RESULTS / f"{result}.html"
    assert "<!-- page" not in source[0] and "## What is seen" in source[0]
