"""The picture of certificates: a falling line of what is certified, and markers of what attacks leave above it."""

import numpy as np
from support.drawn import is_drawn

from hf_pmgaft.evaluation import CertificateReport, CertifiedSet
from hf_pmgaft.plots import certified_curve

RADII = [0, 0.1, 0.2]


def certified(name: str, sigma: float, radii: list[float], **options) -> CertifiedSet:
    return CertifiedSet(name, 5, sigma, [0, 1, 2, 3], [4] * 4, [1, 1, 1, 0], [4, 4, 4, -1], radii, **options)


def test_lines_fall_after_each_certified_radius_below_what_attacks_leave(tmp_path):
    attacked = {"empirical": {"0": [1, 1, 1, 1], "0.1": [1, 1, 1, 0], "0.2": [1, 0, 0, 0]}}
    sets = [
        certified("food", 0.1, [0.05, 0.15, 0.15, 0.0], **attacked),
        certified("food", 0.2, [0.3, 0.3, 0.3, 0.0]),
        certified("pets", 0.1, [0.0, 0.0, 0.0, 0.0]),
    ]
    figure = certified_curve(CertificateReport({"radii": RADII}, sets), tmp_path / "certified.png")
    assert is_drawn(tmp_path / "certified.png")
    food, pets = figure.axes
    assert (food.get_title(), pets.get_title()) == ("food", "pets")

    lines = {line.get_label(): line for line in food.lines}
    steps = lines["sigma 0.1, at least"]
    np.testing.assert_allclose(steps.get_xdata(), [0, 0.05, 0.15, 0.33])
    np.testing.assert_allclose(steps.get_ydata(), [75, 75, 50, 0])
    assert steps.get_drawstyle() == "steps-pre"
    assert lines["bare model, clean"].get_ydata()[0] == 75

    (markers,) = [group for group in food.containers if group.get_label() == "sigma 0.1, at most"]
    assert list(markers.lines[0].get_xdata()) == RADII
    assert list(markers.lines[0].get_ydata()) == [100, 75, 25]
    assert len(markers.lines[2]) == 1  # whiskers
    labels = [text.get_text() for text in pets.get_legend().get_texts()]
    assert labels == ["sigma 0.1, at least", "bare model, clean"]
