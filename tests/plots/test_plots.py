"""The pictures: what each panel shows, read from the figure and from the file."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_pmgaft.attacks.spec import check_attack, threat_name
from hf_pmgaft.evaluation.intervals import wilson_interval
from hf_pmgaft.evaluation.report import RobustnessReport, SetResult
from hf_pmgaft.plots import (
    attention_gallery,
    bars_with_spread,
    clean_against_robust,
    gallery,
    robustness_bars,
    robustness_curve,
    training_curves,
)

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
    threats = list(dict.fromkeys(threat_name(spec) for spec in attacks))
    sets = []
    for i, (name, (clean, *values)) in enumerate(figures.items()):
        by_threat = dict(zip(threats, values, strict=True))
        sets.append(SetResult(name, 4 + 6 * i, 50, clean, values[0], {}, threats=by_threat))
    protocol = {"attacks": attacks, "headline": threats[0], "verdict": "worst case", **protocol}
    return RobustnessReport(protocol, sets)


def is_drawn(file) -> bool:
    """Whether the file is a PNG of which a part, but not all, is ink."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("L"))
    return picture.format == "PNG" and 0.005 < (pixels < 250).mean() < 0.9


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
    attacks = [check_attack(AUTOATTACK), check_attack(PGD), check_attack({**PGD, "eps": "8/255"}), check_attack(JPEG)]
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


def make_gallery(file, count=3, **options):
    clean = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    sign = torch.ones(count, 3, 8, 8)
    sign[..., :4] = -1
    names = ["cat", "cash $ and $", "a class whose name is very long"]
    labels = [i % 3 for i in range(count)]
    predictions = {"before": [2] * count, "after": labels}
    return gallery(clean, clean + sign * 4 / 255, names, labels, predictions, file, eps="4/255", **options)


def test_gallery_has_three_rows_and_spans_the_radius_around_mid_grey(tmp_path):
    figure = make_gallery(tmp_path / "gallery.png")
    assert len(figure.axes) == 9
    assert [figure.axes[i].get_ylabel() for i in (0, 3, 6)] == ["clean", "perturbation × 32", "adversarial"]
    pixels = figure.axes[3].images[0].get_array()
    assert np.allclose(pixels[:, :4], 0, atol=1e-4) and np.allclose(pixels[:, 4:], 1, atol=1e-4)
    assert "4/255" in figure.get_suptitle()
    assert is_drawn(tmp_path / "gallery.png")


def test_gallery_marks_right_and_wrong_by_sign_and_colour(tmp_path):
    figure = make_gallery(tmp_path / "gallery.png")
    assert [axis.get_title() for axis in figure.axes[:2]] == ["cat", "cash $ and $"]
    wrong, right = figure.axes[6].texts
    assert wrong.get_text() == "✗ before: a class whose nam…" and right.get_text() == "✓ after: cat"
    assert wrong.get_color() != right.get_color()
    assert [text.get_text()[0] for text in figure.axes[8].texts] == ["✓", "✓"]


def test_gallery_predictions_lie_inside_the_picture(tmp_path):
    make_gallery(tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    border = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()])
    assert (border > 250).all()


def test_gallery_shows_the_first_columns_only(tmp_path):
    assert len(make_gallery(tmp_path / "gallery.png", count=5, columns=2).axes) == 6
    assert len(make_gallery(tmp_path / "gallery.png", count=1).axes) == 3


def test_gallery_of_an_l2_attack_magnifies_to_its_largest_value(tmp_path):
    clean = torch.full((1, 3, 8, 8), 0.5)
    adversarial = clean.clone()
    adversarial[0, :, 0, 0] += 0.1
    figure = gallery(clean, adversarial, ["cat", "dog"], [0], {}, tmp_path / "gallery.png", eps=2.0, norm="l2")
    pixels = figure.axes[1].images[0].get_array()
    assert np.allclose(pixels[0, 0], 1) and np.allclose(pixels[4, 4], 0.5)


NAMES = ["cat", "cash $ and $", "a class whose name is very long"]


def make_attention(file, **options):
    """Two models, three images of 8 x 8; the first model's attention moves from top left to bottom right."""
    images = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    moving, staying = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    moving[0, :, 0, 0] = moving[1, :, 1, 1] = 0.3
    staying[:, :, 0, 0] = torch.tensor([0.3, 0.1])[:, None]
    predictions = {"plain": torch.tensor([[0, 1, 2], [2, 1, 0]]), "robust": torch.tensor([[0, 1, 2], [0, 1, 2]])}
    maps = {"plain": moving, "robust": staying}
    drawn = attention_gallery(dict.fromkeys(maps, images), maps, predictions, NAMES, [0, 1, 2], file, **options)
    panels = np.array(drawn.axes[:24], dtype=object).reshape(2, 3, 2, 2)
    return drawn, panels, images


def test_attention_gallery_has_image_and_map_side_by_side_clean_and_attacked(tmp_path):
    figure, panels, images = make_attention(tmp_path / "gallery.png", title="Where they look")
    for view in range(2):
        for column in range(3):
            image = panels[0, column, 0, view].images[0].get_array()
            assert np.allclose(image, images[view, column].permute(1, 2, 0))
            grey, heat = panels[1, column, 1, view].images
            assert np.allclose(grey.get_array(), images[view, column].mean(0), atol=1e-6)
            assert heat.get_array().shape == (8, 8) and 0 < heat.get_alpha() < 1
    assert [axis.get_title() for axis in panels[0, 1, 0]] == ["clean", "attacked"]
    assert "Where they look" in [text.get_text() for text in figure.texts]
    assert {text.get_text() for row in (0, 1) for text in panels[row, 0, 0, 0].texts} >= {"cat", "plain", "robust"}
    assert is_drawn(tmp_path / "gallery.png")


def test_attention_is_hot_where_the_map_is_and_scaled_to_its_own_range(tmp_path):
    _, panels, _ = make_attention(tmp_path / "gallery.png")
    hottest = {(0, 0): (0, 0), (0, 1): (7, 7), (1, 0): (0, 0), (1, 1): (0, 0)}
    for (row, view), place in hottest.items():
        heat = np.asarray(panels[row, 0, 1, view].images[1].get_array())
        assert heat[place] == 1 == heat.max() and heat[7 - place[0], 7 - place[1]] == 0 == heat.min()
        assert panels[row, 0, 1, view].images[1].get_clim() == (0, 1)


def test_attention_gallery_says_how_far_the_attention_moved(tmp_path):
    _, panels, _ = make_attention(tmp_path / "gallery.png")
    found = [panels[row, 0, 1, 0].texts[0].get_text() for row in (0, 1)]
    assert found == ["correlation -0.33", "correlation 1.00"]


def test_attention_gallery_marks_right_and_wrong_clean_and_attacked(tmp_path):
    _, panels, _ = make_attention(tmp_path / "gallery.png")

    def verdicts(row, column):
        return [axis.texts[0] for axis in panels[row, column, 0]]

    clean, attacked = verdicts(0, 0)
    assert [clean.get_text(), attacked.get_text()] == ["✓ cat", "✗ a class whose nam…"]
    assert [text.get_text()[0] for column in range(3) for text in verdicts(0, column)] == list("✓✗✓✓✓✗")
    assert all(text.get_color() == clean.get_color() for column in range(3) for text in verdicts(1, column))
    assert clean.get_color() != attacked.get_color()


def test_a_constant_attention_map_is_drawn_as_nothing(tmp_path):
    images, flat = torch.rand(2, 1, 3, 8, 8), torch.full((2, 1, 2, 2), 0.2)
    options = {"predictions": {"a": torch.zeros(2, 1, dtype=torch.long)}, "class_names": NAMES, "labels": [0]}
    figure = attention_gallery({"a": images}, {"a": flat}, file=tmp_path / "gallery.png", **options)
    assert np.abs(figure.axes[2].images[1].get_array()).max() == 0


def test_bars_with_spread_has_a_panel_per_figure_and_a_bar_per_method_and_condition(tmp_path):
    accuracy = {
        "clean": {"none": (84.0, 0.0), "FARE": (80.0, 1.0)},
        "4/255": {"none": (2.0, 0.0), "FARE": (40.0, 0.5)},
    }
    figure = bars_with_spread({"accuracy": accuracy, "recall": {"4/255": accuracy["4/255"]}}, tmp_path / "bars.png")
    first, second = figure.axes
    assert [patch.get_height() for patch in first.patches] == [84, 80, 2, 40]
    assert [patch.get_height() for patch in second.patches] == [2, 40]
    assert [text.get_text() for text in first.get_xticklabels()] == ["none", "FARE"]
    assert first.patches[2].get_facecolor() == second.patches[0].get_facecolor() != first.patches[0].get_facecolor()
    (whiskers,) = second.containers[-1].errorbar.lines[2]
    assert [segment[:, 1].tolist() for segment in whiskers.get_segments()] == [[2, 2], [39.5, 40.5]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean", "4/255"]
    assert (tmp_path / "bars.png").stat().st_size > 5000
