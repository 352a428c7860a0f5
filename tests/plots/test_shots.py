"""Curves over shots: numbers in their order, all of them last, a line per method."""

from PIL import Image

from hf_pmgaft.plots.shots import places_of, shots_curves


def test_numbers_of_shots_stand_in_order_and_all_of_them_last():
    assert list(places_of({"a": {"16": (1, 0), "all": (1, 0)}, "b": {"4": (1, 0), "": (1, 0), "1": (1, 0)}})) == [
        *("1", "4", "16", "all")
    ]


def test_a_picture_has_a_panel_per_figure(tmp_path):
    lines = {
        "none": {"": (50.0, 0.0)},
        **{f"method {n}": {"1": (40.0 + n, 2.0), "all": (60.0, 1.0)} for n in range(9)},
    }
    shots_curves({"clean": lines, "robust": lines}, tmp_path / "two.png")
    shots_curves({"clean": lines}, tmp_path / "one.png")
    widths = [Image.open(tmp_path / name).width for name in ("two.png", "one.png")]
    assert widths[0] > 1.8 * widths[1]
