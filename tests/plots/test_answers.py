"""Figures of what models write against the radius."""

import io

import pytest
from support.answers import answer_report

from hf_pmgaft.plots import answer_curves


def test_a_line_holds_a_towers_figures_at_each_radius_in_its_band():
    figure = answer_curves({"a model": answer_report("own tower", "robust")}, io.BytesIO())
    of_vqa, of_target = figure.axes
    assert [line.get_label() for line in of_vqa.lines] == ["own tower", "robust"]
    assert of_vqa.lines[0].get_xdata() == pytest.approx([0, 4]) and list(of_vqa.lines[0].get_ydata()) == [75, 25]
    assert list(of_target.lines[1].get_ydata()) == [0, 50] and of_target.get_ylabel() == "success x 100"
    low, high = of_vqa.collections[0].get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((25 / 3, 75))


def test_lines_of_two_reports_have_their_names_and_panels_that_are_left_over_are_gone():
    report = answer_report("own tower")
    described, cells = report["protocol"]["tasks"], report["towers"]["own tower"]
    for number in range(2):
        described[f"task {number}"], cells[f"task {number}"] = described["vqa"], cells["vqa"]
    figure = answer_curves({"a": report, "b": report}, io.BytesIO())
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a: own tower", "b: own tower"]
