"""The pictures: what each panel shows, read from the figure and from the file."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_pmgaft.evaluation import RobustnessReport, SetResult
from hf_pmgaft.plots import gallery, robustness_bars, training_curves

PGD = {"attack": "pgd", "eps": "4/255", "norm": "linf", "num_steps": 20, "loss": "margin"}
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
