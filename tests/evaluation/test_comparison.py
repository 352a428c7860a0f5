"""Two reports, compared image by image."""

import copy

import pytest
import torch
from support.sets import CE, MARGIN

from hf_pmgaft import RobustnessReport, compare_reports, evaluate_robustness
from hf_pmgaft.evaluation.comparison import disagreements
from hf_pmgaft.evaluation.report import SetResult


def run(fitted, data, attacks=(MARGIN,), **options) -> RobustnessReport:
    return evaluate_robustness(*fitted, [data], list(attacks), progress=False, **options)


def test_comparison_pairs_the_images(fitted, data):
    first = run(fitted, data)
    other = copy.deepcopy(fitted[0])
    torch.manual_seed(0)
    with torch.no_grad():
        other.visual_projection.weight.add_(0.3 * torch.randn_like(other.visual_projection.weight))
    second = run((other, fitted[1]), data)
    assert first.protocol_hash == second.protocol_hash and first.model != second.model
    pair = compare_reports(first, second).sets["own"]["robust"]
    a, b = (report.sets[0].verdicts["robust"] for report in (first, second))
    assert pair.difference == pytest.approx(second.mean_robust_accuracy - first.mean_robust_accuracy)
    assert pair.gained == sum(y > x for x, y in zip(a, b, strict=True)) and pair.gained + pair.lost > 0
    assert pair.interval[0] < pair.difference < pair.interval[1]
    same = compare_reports(first, first)
    assert same.sets["own"]["clean"].difference == 0 and same.sets["own"]["clean"].p_value == 1
    mean, low, high = compare_reports(first, second).means["robust"]
    assert mean == pytest.approx(pair.difference) and low < mean < high


def test_reports_of_different_protocols_are_not_compared(fitted, data):
    first, second = run(fitted, data), run(fitted, data, [CE], seed=1)
    with pytest.raises(ValueError, match=r"different protocols.*attacks.*seed.*sets.own.attacks"):
        compare_reports(first, second)
    second = copy.deepcopy(first)
    second.protocol["versions"]["torch"] = "1.0"
    with pytest.raises(ValueError, match="versions.torch"):
        compare_reports(first, second)
    assert compare_reports(first, second, ignore=["versions"]).means["clean"][0] == 0
    second.sets[0].verdicts = {}
    with pytest.raises(ValueError, match="no verdicts of the same images"):
        compare_reports(first, second, ignore=["versions"])


def report(robust: list[int], figure: str = "accuracy") -> RobustnessReport:
    verdicts = {"sample_id": [0, 1, 2, 3], "clean": [1, 1, 1, 1], "robust": robust}
    sets = [SetResult(name, 4, 4, 1.0, sum(robust) / 4, {}, verdicts, figure=figure) for name in ("food", "pets")]
    return RobustnessReport({"attacks": []}, sets)


def test_rows_are_of_every_set_and_figure_and_then_of_the_means():
    comparison = compare_reports(report([0, 0, 1, 0]), report([1, 1, 0, 0]))
    header, *rows = comparison.rows()
    assert header == ["set", "figure", "difference", "95 %", "gained", "lost", "p"]
    assert [row[:2] for row in rows[:4]] == [[name, key] for name in ("food", "pets") for key in ("clean", "robust")]
    assert rows[1][2:3] + rows[1][4:] == ["+25.0", "2", "1", "1"]
    assert [row[:3] for row in rows[4:]] == [["mean of sets", "clean", "+0.0"], ["mean of sets", "robust", "+25.0"]]
    assert rows[1][3] == "-55.1 to +88.5"


def test_means_of_recalls_are_named_by_their_figure():
    comparison = compare_reports(report([0, 0, 1, 0], "I2T R@5"), report([1, 1, 0, 0], "I2T R@5"))
    assert list(comparison.means) == ["I2T R@5 clean", "I2T R@5 robust"]


def test_a_comparison_is_saved_as_plain_types():
    saved = compare_reports(report([0, 0, 1, 0]), report([1, 1, 0, 0])).to_dict()
    assert saved["sets"]["food"]["robust"]["gained"] == 2 and len(saved["means"]["robust"]) == 3


# ---- Images that one model alone has right ----


def test_disagreements_are_the_rows_that_the_comparison_counts():
    first, second = report([0, 0, 1, 0]), report([1, 1, 0, 0])
    comparison = compare_reports(first, second)
    found = disagreements(first, second)
    assert [each.name for each in found] == ["food", "pets"]
    for each in found:
        pair = comparison.sets[each.name]["robust"]
        assert (each.gained, each.lost) == ([0, 1], [2]) and (len(each.gained), len(each.lost)) == (2, 1)
        assert (pair.gained, pair.lost) == (2, 1)
    assert all(not each.gained and not each.lost for each in disagreements(first, second, "clean"))


def test_of_segmentation_they_are_images_of_which_one_has_more_pixels_right():
    def segmented(robust):
        verdicts = {"sample_id": [4, 7, 9], "clean": [[60, 64]] * 3, "robust": robust}
        share = sum(right for right, _ in robust) / 192
        result = SetResult("scenes pixel accuracy", 4, 3, 180 / 192, share, {}, verdicts, figure="pixel accuracy")
        return RobustnessReport({"attacks": []}, [result])

    (found,) = disagreements(segmented([[30, 64], [8, 64], [5, 64]]), segmented([[31, 64], [8, 64], [4, 64]]))
    assert (found.dataset, found.gained, found.lost) == ("scenes", [4], [9])


def test_disagreements_need_a_key_of_the_reports_and_the_same_images():
    first, second = report([0, 0, 1, 0]), report([1, 1, 0, 0])
    with pytest.raises(ValueError, match=r"under 'PGD-3', which the reports do not have. Choose one of clean, robust"):
        disagreements(first, second, "PGD-3")
    second.sets[1].verdicts = {**second.sets[1].verdicts, "sample_id": [0, 1, 2, 5]}
    with pytest.raises(ValueError, match="no verdicts of the same images of 'pets'"):
        disagreements(first, second)
