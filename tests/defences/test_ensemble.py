"""The ensemble of views: golden values, and where its crops lie."""

import pytest
import torch
from support.defended import GOLDEN, is_golden, loss_and_gradient, toy

from hf_pmgaft.defences import Ensemble
from hf_pmgaft.defences.spec import DefenceSpec

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


def test_other_scales_are_further_views_in_the_graph_and_the_protocol_names_them():
    spec = DefenceSpec.parse("ensemble,num_crops=0,scales=0.5+2")
    assert spec.to_dict() == {"defence": "ensemble", "num_crops": 0, "pad": 4, "seed": 0, "scales": "0.5+2"}
    assert spec.title == "views (num_crops=0, scales=0.5+2)"

    image = torch.arange(16.0).view(1, 1, 4, 4).requires_grad_()
    views = Ensemble(None, num_crops=0, scales="0.5+2").views(image)
    assert [tuple(view.shape) for view in views] == [(1, 1, 4, 4)] * 6
    # Shrunk: the middle has a fourth of the pixels, black is around; the mirror image likewise.
    assert (views[2] == 0).sum() == 12 and views[2][0, 0, 0].tolist() == [0.0] * 4
    assert torch.equal(views[3], views[2].flip(3))
    # Enlarged: the middle half of the image.
    assert views[4].min() > 2 and views[4].max() < 13
    torch.testing.assert_close(views[4].mean(), image.mean())
    gradient = torch.autograd.grad(views[2].sum() + views[4].sum(), image)[0]
    assert (gradient.abs() > 0).all()


def test_every_view_has_one_vote():
    classifier, images, _ = toy()
    defence = Ensemble(classifier, num_crops=2, scales="0.5")
    mean = torch.stack([classifier(view) for view in defence.views(images)]).mean(0)
    torch.testing.assert_close(defence(images), mean)
    assert len(defence.views(images)) == 2 * (1 + 2) + 2


@pytest.mark.parametrize(
    ("scales", "message"),
    [("1", "1 leaves the image as it is"), ("0.5+", "the factor ''"), ("0", "above 0"), ("wide", "no number")],
)
def test_scales_that_are_none_are_refused(scales, message):
    with pytest.raises(ValueError, match=message):
        DefenceSpec.of({"defence": "ensemble", "scales": scales})


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="num_crops=-1, which is no count"):
        Ensemble(None, num_crops=-1)
    with pytest.raises(ValueError, match="pad=0, which is no count"):
        Ensemble(None, pad=0)
