"""The ensemble of views: golden values, and where its crops lie."""

import pytest
import torch
from support.defended import GOLDEN, is_golden, loss_and_gradient, toy

from hf_pmgaft.defences import Ensemble

CASE = GOLDEN["view_ensemble"]


def test_values_and_gradients_are_the_golden_ones():
    classifier, images, labels = toy()
    defence = Ensemble(classifier, num_crops=3, pad=CASE["pad"])
    defence.offsets = CASE["crop_offsets_row_column"]
    is_golden(defence(images), CASE["logits"])
    votes = torch.stack([classifier(view).argmax(1) for view in defence.views(images)], dim=1)
    assert votes.tolist() == CASE["votes"]
    loss, gradient = loss_and_gradient(defence, images, labels)
    is_golden(loss, CASE["loss"])
    is_golden(gradient, CASE["gradient_through"])


def test_crops_lie_everywhere_and_are_drawn_by_the_seed():
    offsets = Ensemble(None, num_crops=400, pad=2).offsets
    assert {row for row, _ in offsets} == {column for _, column in offsets} == set(range(5))
    assert {(row, column) for row, column in offsets} == {(row, column) for row in range(5) for column in range(5)}
    assert offsets == Ensemble(None, num_crops=400, pad=2).offsets
    assert offsets != Ensemble(None, num_crops=400, pad=2, seed=1).offsets


def test_a_crop_is_a_shift_with_black_at_the_border():
    image = torch.ones(1, 1, 4, 4)
    defence = Ensemble(None, num_crops=1, pad=1)
    defence.offsets = [(0, 2)]
    shifted = defence.views(image)[2][0, 0]
    assert shifted.tolist() == [[0.0] * 4] + [[1.0, 1.0, 1.0, 0.0]] * 3


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="num_crops=-1, which is no count"):
        Ensemble(None, num_crops=-1)
    with pytest.raises(ValueError, match="pad=0, which is no count"):
        Ensemble(None, pad=0)
