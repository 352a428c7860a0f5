"""The picture of a transfer matrix: cells, their numbers, and the frames of the diagonal."""

import numpy as np
from support.drawn import is_drawn

from hf_pmgaft.evaluation import TransferReport, TransferSet
from hf_pmgaft.plots import transfer_map


def test_cells_are_accuracies_by_source_and_judge_below_those_without_an_attack(tmp_path):
    right = {
        "linf 4/255": {"a": {"a": [0, 0], "b": [1, 0]}, "b": {"a": [1, 1], "b": [0, 1]}},
        "linf 8/255": {"a": {"a": [0, 0], "b": [0, 0]}, "b": {"a": [1, 0], "b": [0, 0]}},
    }
    food = TransferSet("food", 3, [0, 1], {"a": [1, 1], "b": [1, 0]}, right)
    attacks = [{"attack": "fgsm", "eps": eps} for eps in ("4/255", "8/255")]
    figure = transfer_map(TransferReport({"attacks": attacks}, [food], {"a": {}, "b": {}}), tmp_path / "map.png")
    assert is_drawn(tmp_path / "map.png")

    four, eight = figure.axes[:2]
    assert (four.get_title(), eight.get_title()) == ("linf 4/255", "linf 8/255")
    np.testing.assert_allclose(four.images[0].get_array(), [[100, 50], [0, 50], [100, 50]])
    np.testing.assert_allclose(eight.images[0].get_array(), [[100, 50], [0, 0], [50, 0]])
    assert [text.get_text() for text in four.texts] == ["100.0", "50.0", "0.0", "50.0", "100.0", "50.0"]
    frames = [(patch.get_x(), patch.get_y()) for patch in four.patches]
    assert frames == [(-0.5, 0.5), (0.5, 1.5)]  # a on a, b on b
    assert [label.get_text() for label in four.get_xticklabels()] == ["a", "b"]
