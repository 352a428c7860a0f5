"""Pictures of the studies, read from the figures."""

from study_plots import bars_with_spread, scatter_with_spread
from support.drawn import is_drawn


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


def test_scatter_with_spread_has_a_named_point_with_whiskers_per_entry(tmp_path):
    points = {"none": (84.0, 2.0, 0.0, 0.0), "FARE": (80.0, 40.0, 1.0, 0.5)}
    figure = scatter_with_spread(points, tmp_path / "points.png", "clean in %", "robust in %")
    (axis,) = figure.axes
    drawn = {
        line.get_label(): (*line.get_xdata(), *line.get_ydata()) for line in axis.lines if line.get_label()[0] != "_"
    }
    assert drawn == {"none": (84, 2), "FARE": (80, 40)}
    _, _, x_whiskers, y_whiskers = axis.collections
    assert x_whiskers.get_segments()[0][:, 0].tolist() == [79, 81]
    assert y_whiskers.get_segments()[0][:, 1].tolist() == [39.5, 40.5]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("clean in %", "robust in %")
    assert is_drawn(tmp_path / "points.png")
