"""Losses of pixels against golden values, at their ends, and where pixels are ignored."""

import json
import math
from pathlib import Path

import pytest
import torch

from hf_pmgaft.attacks.dense_losses import DENSE_LOSSES, OF_PIXELS, controlling_loss, dense_loss, is_right
from hf_pmgaft.attacks.losses import LOSSES

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "segmentation.json").read_text())["losses"]
CASES = {
    "ce": ("ce", 0.0),
    "masked_ce": ("masked_ce", 0.0),
    "segpgd_t0": ("segpgd", 0.0),
    "segpgd_t5_of_20": ("segpgd", 0.25),
    "segpgd_t20_of_20": ("segpgd", 1.0),
    "js": ("js", 0.0),
    "masked_spherical": ("masked_spherical", 0.0),
    "cospgd_softmax": ("cospgd", 0.0),
}
names = pytest.mark.parametrize("name", sorted(DENSE_LOSSES))


def golden(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def assert_golden(found: torch.Tensor, expected, tolerance: float = 1e-7) -> None:
    expected = golden(expected)
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_losses_and_their_gradients_are_the_golden_ones(case):
    (name, share), expected = CASES[case], GOLDEN["cases"][case]
    logits, masks = golden(GOLDEN["logits"]).requires_grad_(), torch.tensor(GOLDEN["labels"])
    assert_golden(DENSE_LOSSES[name](logits, masks, share), expected["per_pixel"])
    loss = dense_loss(name, logits, masks, share)
    assert_golden(loss, expected["per_image"])
    assert_golden(torch.autograd.grad(loss.sum(), logits)[0], expected["gradient_of_sum"], 1e-6)

    # Each image may be at a step of its own.
    each = dense_loss(name, logits, masks, torch.full((len(masks),), share))
    torch.testing.assert_close(each, loss)


def test_all_of_the_golden_losses_are_met_but_the_other_reading_of_cospgd():
    assert set(GOLDEN["cases"]) - set(CASES) == {"cospgd_sigmoid"}
    assert {name for name, _ in CASES.values()} == set(DENSE_LOSSES) - {"margin"}
    assert OF_PIXELS == set(DENSE_LOSSES) - {"ce", "margin"} and not OF_PIXELS & set(LOSSES)
    assert {name: controlling_loss(name) for name in ("ce", "js", "segpgd", "margin")} == {
        "ce": "ce",
        "js": "ce",
        "segpgd": "ce",
        "margin": "margin",
    }


@pytest.mark.parametrize("name", ["ce", "margin"])
def test_losses_of_images_are_those_of_pixels_there(name):
    logits, masks = golden(GOLDEN["logits"]), torch.tensor(GOLDEN["labels"])
    rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
    of_pixels = LOSSES[name](rows, masks.flatten().clamp_min(0)).view(masks.shape) * (masks >= 0)
    torch.testing.assert_close(DENSE_LOSSES[name](logits, masks, 0.0), of_pixels)


@names
def test_ignored_pixels_count_as_0_and_have_no_gradient(name):
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    masks = logits.argmax(1)
    masks[0, 0, 1] = -1
    masks[0, 2, 2] = -100
    masks[1] = -1
    loss = dense_loss(name, logits, masks, 0.5)
    gradient = torch.autograd.grad(loss.sum(), logits)[0]
    assert loss[1] == 0 and not gradient[1].any()
    assert not gradient[0, :, 0, 1].any() and not gradient[0, :, 2, 2].any() and gradient[0, :, 1, 1].any()
    known = masks[0] >= 0
    assert loss[0].item() == pytest.approx(DENSE_LOSSES[name](logits, masks, 0.5)[0][known].sum().item() / 9)
    assert not is_right(logits, masks)[~(masks >= 0)].any()


@names
def test_logits_far_apart_have_finite_losses_and_gradients(name):
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 0, 0] = torch.tensor([300.0, -300.0, 0.0, 0.0])
    logits.requires_grad_()
    loss = DENSE_LOSSES[name](logits, torch.zeros(1, 1, 4, dtype=torch.long), 0.5)
    gradient = torch.autograd.grad(loss.sum(), logits)[0]
    assert loss.isfinite().all() and gradient.isfinite().all()
    if name == "js":
        assert loss[0, 0, :2].tolist() == pytest.approx([0.0, math.log(2)])
