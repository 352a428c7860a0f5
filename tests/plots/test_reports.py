"""Pictures of reports: what each panel shows, read from the figure and from the file."""

import numpy as np
import pytest
from support.drawn import is_drawn

from hf_pmgaft import AttackSpec, RobustnessReport
from hf_pmgaft.evaluation.figure import Figure
from hf_pmgaft.evaluation.intervals import wilson_interval
from hf_pmgaft.evaluation.report import SetResult
from hf_pmgaft.plots import clean_against_robust, robustness_bars, robustness_curve, training_curves

PGD = {"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 20, "loss": "margin"}
AUTOATTACK = {"attack": "autoattack", "eps": "4/255", "norm": "linf", "version": "fast"}
JPEG = {"attack": "corruption", "kind": "jpeg", "severity": 2}
LINE = {
    "loss": 3.0,
    "adversarial_ce": 2.0,
    "teacher_kl": 0.7,
    "adversarial_accuracy": 0.25,
    "teacher_clean_accuracy": 0.9,
    "grad_norm": 1.0,
    "learning_rate": 1e-3,
    "epoch": 0.1,
    "step": 10,
}


def report(figures: dict[str, tuple[float, float]], **changes) -> RobustnessReport:
    sets = [SetResult(name, 4, 50, clean, robust, {}) for name, (clean, robust) in figures.items()]
    return RobustnessReport({"attacks": [{**PGD, **changes}], "verdict": "worst case"}, sets)


def threat_report(figures: dict[str, tuple[float, ...]], attacks: list[dict], **protocol) -> RobustnessReport:
    """A report of several threats: by set the clean accuracy, and then that under each threat in order."""
    threats = list(dict.fromkeys(AttackSpec.stored(spec).threat for spec in attacks))
    sets = []
    for i, (name, (clean, *values)) in enumerate(figures.items()):
        by_threat = dict(zip(threats, values, strict=True))
        sets.append(SetResult(name, 4 + 6 * i, 50, clean, values[0], {}, threats=by_threat))
    protocol = {"attacks": attacks, "headline": threats[0], "verdict": "worst case", **protocol}
    return RobustnessReport(protocol, sets)


def curves(axis) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axis.lines}


def heights(axis) -> dict[str, list[float]]:
    bars = [container for container in axis.containers if hasattr(container, "patches")]
    return {group.get_label(): [bar.get_height() for bar in group] for group in bars}


def test_training_curves_sort_terms_accuracies_and_learning_rate_into_panels(tmp_path):
    evaluation = {"eval_mean_clean_accuracy": 0.8, "eval_mean_robust_accuracy": 0.4, "eval_runtime": 9.0, "step": 20}
    history = [LINE, {**LINE, "step": 20, "loss": 2.5}, evaluation, {"train_loss": 2.7, "step": 20}]
    figure = training_curves(history, tmp_path / "curves.png")
    losses, accuracies, rate = figure.axes
    assert curves(losses) == {
        "loss (weighted sum)": [3.0, 2.5],
        "adversarial ce": [2.0, 2.0],
        "teacher kl": [0.7, 0.7],
    }
    assert curves(accuracies) == {
        "adversarial accuracy": [0.25, 0.25],
        "teacher clean accuracy": [0.9, 0.9],
        "eval mean clean accuracy": [0.8],
        "eval mean robust accuracy": [0.4],
    }
    assert curves(rate) == {"learning rate": [1e-3, 1e-3]}
    assert [text.get_text() for text in losses.get_legend().get_texts()] == list(curves(losses))
    assert is_drawn(tmp_path / "curves.png")


@pytest.mark.parametrize("history", [[], [LINE], [{"train_loss": 1.0, "step": 3}]])
def test_training_curves_of_a_run_with_hardly_a_log_line(tmp_path, history):
    figure = training_curves(history, tmp_path / "curves.png")
    losses = figure.axes[0]
    assert len(figure.axes) == 3
    assert all(line.get_marker() == "." for line in losses.lines)  # a line through one point would not be seen
    assert len(losses.lines) == (3 if "loss" in (history or [{}])[0] else 0)
    assert is_drawn(tmp_path / "curves.png")


def test_bars_hold_each_report_per_set_and_mean_and_name_the_attack(tmp_path):
    reports = {
        "before": report({"food": (0.8, 0.0), "pets": (0.6, 0.2)}),
        "after": report({"food": (0.7, 0.5), "pets": (0.5, 0.3)}),
    }
    figure = robustness_bars(reports, tmp_path / "bars.png")
    clean, robust = figure.axes
    assert heights(clean)["before"] == pytest.approx([80, 60, 70])
    assert heights(clean)["after"] == pytest.approx([70, 50, 60])
    assert heights(robust)["before"] == pytest.approx([0, 20, 10])
    assert heights(robust)["after"] == pytest.approx([50, 30, 40])
    assert [tick.get_text() for tick in robust.get_xticklabels()] == ["food", "pets", "mean"]
    assert "PGD-20 margin linf 4/255" in robust.get_title()
    assert is_drawn(tmp_path / "bars.png")


def test_bars_carry_the_interval_of_the_report_and_the_mean_has_none(tmp_path):
    after = report({"food": (0.7, 0.5), "pets": (0.5, 0.0)})
    _, robust = robustness_bars({"after": after}, tmp_path / "bars.png").axes
    (whiskers,) = robust.collections
    spans = [segment[:, 1] for segment in whiskers.get_segments()]
    for span, result in zip(spans, after.sets, strict=False):
        assert span == pytest.approx(100 * np.array(result.robust_interval), abs=1e-6)
    assert spans[2][0] == spans[2][1] == pytest.approx(25)


def test_bars_of_different_attacks_are_refused(tmp_path):
    reports = {"before": report({"food": (0.8, 0.0)}), "after": report({"food": (0.7, 0.5)}, eps="1/255")}
    with pytest.raises(ValueError, match="one protocol"):
        robustness_bars(reports, tmp_path / "bars.png")
    assert not (tmp_path / "bars.png").exists()


def test_bars_show_and_name_the_headline_threat_alone(tmp_path):
    attacks = [AttackSpec.of(spec).to_dict() for spec in (AUTOATTACK, PGD, {**PGD, "eps": "8/255"}, JPEG)]
    figure = robustness_bars({"one": threat_report({"food": (0.9, 0.5, 0.2, 0.7)}, attacks)}, tmp_path / "bars.png")
    robust = figure.axes[1]
    assert robust.get_title() == "Robust accuracy under AutoAttack fast linf 4/255, PGD-20 margin linf 4/255"
    assert heights(robust)["one"] == pytest.approx([50, 50])


CURVES = [{**PGD, "eps": "8/255"}, PGD, JPEG, {"attack": "fgsm", "eps": "1/2", "norm": "l2"}]


def curve_reports() -> dict[str, RobustnessReport]:
    # Clean, and then under 8/255, 4/255, JPEG and L2.
    before = threat_report({"food": (0.8, 0.0, 0.1, 0.7, 0.3), "pets": (0.6, 0.1, 0.3, 0.6, 0.2)}, CURVES)
    after = threat_report({"food": (0.7, 0.2, 0.5, 0.7, 0.6), "pets": (0.5, 0.1, 0.4, 0.4, 0.4)}, CURVES)
    return {"before": before, "after": after}


def test_curve_goes_from_clean_to_the_largest_radius_of_the_norm(tmp_path):
    (axis,) = robustness_curve(curve_reports(), tmp_path / "curve.png").axes
    before, after, chance = axis.lines
    for line, values in ((before, [70, 20, 5]), (after, [60, 45, 15])):
        assert list(line.get_xdata()) == pytest.approx([0, 4, 8])
        assert list(line.get_ydata()) == pytest.approx(values)
    assert chance.get_linestyle() == ":" and list(chance.get_ydata()) == pytest.approx([17.5, 17.5])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["before", "after", "chance (18 %)"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "4", "8"]
    assert "1/255" in axis.get_xlabel() and "mean of 2 sets" in axis.get_ylabel()
    assert axis.get_title() == "Accuracy under PGD-20 margin (worst case per image)"
    assert before.get_color() != after.get_color() and before.get_marker() != after.get_marker()
    assert not axis.collections  # the mean of several sets has no band
    assert is_drawn(tmp_path / "curve.png")


def test_curve_of_another_norm_has_its_own_unit(tmp_path):
    (axis,) = robustness_curve(curve_reports(), tmp_path / "curve.png", norm="l2").axes
    assert list(axis.lines[0].get_xdata()) == [0, 0.5]
    assert list(axis.lines[0].get_ydata()) == pytest.approx([70, 25])
    assert "255" not in axis.get_xlabel() and "FGSM" in axis.get_title()


def test_curve_of_a_single_set_has_its_wilson_band(tmp_path):
    attacks = [PGD, {**PGD, "eps": "8/255"}]
    reports = {"one": threat_report({"food": (0.8, 0.3, 0.0)}, attacks)}
    (axis,) = robustness_curve(reports, tmp_path / "curve.png").axes
    (band,) = axis.collections
    corners = {(round(x), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    for place, value in ((0, 0.8), (4, 0.3), (8, 0.0)):
        assert {(place, round(100 * end, 6)) for end in wilson_interval(value, 50)} <= corners
    assert "food" in axis.get_ylabel()


def test_curve_says_which_attack_ran_at_which_radius_if_they_differ(tmp_path):
    reports = {"one": threat_report({"food": (0.8, 0.3, 0.1)}, [AUTOATTACK, PGD, {**PGD, "eps": "8/255"}])}
    (axis,) = robustness_curve(reports, tmp_path / "curve.png").axes
    expected = "AutoAttack fast, PGD-20 margin at linf 4/255; PGD-20 margin at linf 8/255"
    assert expected in axis.get_title().replace("\n", " ")


def test_curve_without_a_radius_of_the_norm_is_refused(tmp_path):
    reports = {"one": threat_report({"food": (0.8, 0.3)}, [JPEG])}
    with pytest.raises(ValueError, match=r"linf radius, but the reports have the threats \['jpeg 2'\]"):
        robustness_curve(reports, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


@pytest.mark.parametrize("draw", [robustness_bars, robustness_curve, clean_against_robust])
@pytest.mark.parametrize(
    ("other", "key"),
    [
        (threat_report({"food": (0.8, 0.3)}, [{**PGD, "num_steps": 50}]), "attacks"),
        (threat_report({"pets": (0.8, 0.3)}, [PGD]), "sets"),
        (threat_report({"food": (0.8, 0.3)}, [PGD], verdict="last iterate"), "verdict"),
        (threat_report({"food": (0.8, 0.3)}, [PGD], headline="linf 8/255"), "headline"),
    ],
)
def test_reports_of_different_protocols_are_refused(tmp_path, draw, other, key):
    reports = {"before": threat_report({"food": (0.8, 0.3)}, [PGD]), "after": other}
    with pytest.raises(ValueError, match=f"'before' and 'after' differ in their {key}"):
        draw(reports, tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()


@pytest.mark.parametrize("draw", [robustness_bars, robustness_curve, clean_against_robust])
def test_no_reports_are_refused(tmp_path, draw):
    with pytest.raises(ValueError, match="no reports"):
        draw({}, tmp_path / "picture.png")


def whiskers(axis) -> list[np.ndarray]:
    """By report, the ends of the horizontal and of the vertical interval."""
    bars = axis.collections
    ends = [collection.get_segments()[0] for collection in bars]
    return [np.array([x[:, 0], y[:, 1]]) for x, y in zip(ends[::2], ends[1::2], strict=True)]


def test_clean_against_robust_has_a_named_point_per_report(tmp_path):
    figure = clean_against_robust(curve_reports(), tmp_path / "points.png")
    (axis,) = figure.axes
    points = {
        line.get_label(): [*line.get_xdata(), *line.get_ydata()] for line in axis.lines if line.get_label()[0] != "_"
    }
    assert points == {"before": pytest.approx([70, 5]), "after": pytest.approx([60, 15])}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["before", "after"]
    assert "clean accuracy in % (mean of 2 sets)" == axis.get_xlabel()
    assert "under PGD-20 margin linf 8/255" in axis.get_ylabel() and "4/255" not in axis.get_ylabel()
    assert is_drawn(tmp_path / "points.png")


def test_clean_against_robust_of_one_set_carries_wilson_intervals(tmp_path):
    reports = {"one": threat_report({"food": (0.8, 0.0)}, [PGD])}
    (axis,) = clean_against_robust(reports, tmp_path / "points.png").axes
    (span,) = whiskers(axis)
    assert span == pytest.approx(100 * np.array([wilson_interval(0.8, 50), wilson_interval(0.0, 50)]), abs=1e-6)


def test_clean_against_robust_of_equal_sets_is_surer_by_the_root_of_their_number(tmp_path):
    one, four = (threat_report({f"set {i}": (0.8, 0.4) for i in range(count)}, [PGD]) for count in (1, 4))
    (single,) = whiskers(clean_against_robust({"a": one}, tmp_path / "points.png").axes[0])
    (joint,) = whiskers(clean_against_robust({"a": four}, tmp_path / "points.png").axes[0])
    centre = np.array([[80], [40]])
    assert joint - centre == pytest.approx((single - centre) / 2)


@pytest.mark.parametrize("figure", ["I2T R@5", Figure.recall("I2T", 5)])
def test_curve_of_a_recall_has_no_chance_and_names_it(tmp_path, figure):
    threats = {"linf 4/255": 0.3, "linf 8/255": 0.1}
    sets = [
        SetResult(f"pairs {title}", 20, 50, clean, 0.3, {}, threats=threats, figure=title)
        for title, clean in (("I2T R@1", 0.5), ("I2T R@5", 0.8))
    ]
    report = RobustnessReport({"attacks": [PGD, {**PGD, "eps": "8/255"}], "headline": "linf 4/255"}, sets)
    (axis,) = robustness_curve({"one": report}, tmp_path / "curve.png", figure=figure).axes
    (line,) = axis.lines
    assert list(line.get_ydata()) == pytest.approx([80, 30, 10])
    assert axis.get_title() == "I2T R@5 under PGD-20 margin (worst case per query)"
