"""TTC: golden values, the branch on what noise moves, and the two backward passes."""

import pytest
import torch
import torch.nn.functional as F
from support.defended import GOLDEN, double, is_golden, loss_and_gradient, slope, toy

from hf_pmgaft.defences import TTC, RandomNoise
from hf_pmgaft.defences.defence import straight_through

CASES = GOLDEN["ttc"]["cases"]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def ttc(case: dict, classifier, original=None, **changed) -> TTC:
    settings = dict(case["settings"])
    return TTC(classifier, original, threshold=settings.pop("tau"), **{**settings, **changed})


@every_case
def test_values_are_the_golden_ones(case):
    classifier, images, labels = toy()
    noise = double(case["noise"])
    moved = ttc(case, classifier).counterattack(images, noise)
    is_golden(moved - images, case["delta"])
    is_golden(classifier(moved), case["logits"])


@every_case
def test_gradients_are_the_golden_ones(case):
    classifier, images, labels = toy()
    defence, noise = ttc(case, classifier), double(case["noise"])

    def through(point):
        return classifier(defence.counterattack(point, noise))

    def replaced(point):
        return classifier(straight_through(defence.counterattack(point, noise), point))

    loss, gradient = loss_and_gradient(through, images, labels)
    is_golden(loss, case["loss"])
    is_golden(gradient, case["gradient_through"])
    is_golden(loss_and_gradient(replaced, images, labels)[1], case["gradient_straight_through"])


def test_the_two_backward_passes_differ_where_the_border_cuts_off():
    case = CASES["authors_settings"]
    through, replaced = (double(case[key]) for key in ("gradient_through", "gradient_straight_through"))
    assert ((through - replaced).abs() > 1e-6).sum() == 1


@pytest.mark.parametrize("side", ["black", "white"])
def test_the_gradient_through_is_that_of_the_unrolled_walk_where_pixels_are_near_the_border(side):
    classifier, images, labels = toy()
    images = images / 40 if side == "black" else 1 - images / 40
    defence, noise = TTC(classifier, num_steps=4, threshold=10.0), double(CASES["five_steps"]["noise"])

    def loss(images):
        logits = classifier(defence.counterattack(images, noise))
        return F.cross_entropy(logits, labels, reduction="none").detach()

    _, gradient = loss_and_gradient(lambda point: classifier(defence.counterattack(point, noise)), images, labels)
    is_golden(gradient, slope(loss, images), 1e-5)
    is_pinned = gradient.abs() < 1e-12
    assert 3 < is_pinned.sum() < is_pinned.numel() - 3


@pytest.mark.parametrize("tower", ["itself", "original"])
def test_the_counterattack_is_where_noise_moves_less_than_the_threshold(tower):
    case = CASES["authors_settings"]
    expected = case if tower == "itself" else GOLDEN["ttc"]["tau_from_the_original_tower"]
    classifier, images, _ = toy()
    original = None if tower == "itself" else toy(W1=(3 * double(GOLDEN["inputs"]["W1"])).round(decimals=3))[0]
    noise = double(case["noise"])

    for image, tau in enumerate(expected["tau_values"]):
        for shift in (-1e-10, 1e-10):
            defence = ttc({"settings": {**case["settings"], "tau": tau + shift}}, classifier, original)
            delta = defence.counterattack(images, noise)[image] - images[image]
            noise_alone = torch.clamp(noise, -images, 1 - images)[image]
            is_golden(delta, expected["delta"][image] if shift > 0 else noise_alone)


def test_no_steps_are_random_noise():
    classifier, images, _ = toy(torch.float32)
    seeds = torch.arange(4)
    alone = TTC(classifier, num_steps=0).purified(images, seeds)
    torch.testing.assert_close(alone, RandomNoise(classifier).purified(images, seeds), rtol=0, atol=1e-7)


def test_noise_is_clipped_to_the_box_before_it_is_judged():
    classifier, images, _ = toy()
    noise = torch.full_like(images, 0.015)
    at_border = torch.where(images > 0.5, 1.0, 0.0)
    moved = TTC(classifier, threshold=0.0).counterattack(at_border.double(), noise)
    assert torch.equal(moved, (at_border + noise).clamp(0, 1))


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="num_steps=-1, which is no count"):
        TTC(None, num_steps=-1)
    with pytest.raises(ValueError, match="step size 'far'"):
        TTC(None, step_size="far")
    assert TTC(None, eps=0.5, step_size="0.5eps").step_size == 0.25
