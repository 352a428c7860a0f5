"""Hedge defense: golden values, the clipping of its walk, and gradients by differences."""

import pytest
import torch
import torch.nn.functional as F
from support.defended import GOLDEN, double, is_golden, loss_and_gradient, slope, toy

from hf_pmgaft.defences import Hedge

CASES = GOLDEN["hedge"]["cases"]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def hedge_and_noise(case: dict):
    classifier, images, labels = toy()
    noise = double(case["noise"]) if case["noise"] else torch.zeros_like(images)
    return Hedge(classifier, **case["settings"]), noise, images, labels


@every_case
def test_values_are_the_golden_ones(case):
    defence, noise, images, _ = hedge_and_noise(case)
    moved = defence.hedge(images, noise)
    is_golden(moved, case["hedged_images"])
    is_golden(defence.classifier(moved), case["logits"])


@every_case
def test_the_gradient_through_is_that_of_the_unrolled_walk(case):
    defence, noise, images, labels = hedge_and_noise(case)

    def loss(images):
        logits = defence.classifier(defence.hedge(images, noise))
        return F.cross_entropy(logits, labels, reduction="none").detach()

    _, gradient = loss_and_gradient(lambda point: defence.classifier(defence.hedge(point, noise)), images, labels)
    is_golden(gradient, slope(loss, images), 1e-5)


def test_straight_through_is_the_bare_gradient_at_the_last_point():
    classifier, images, labels = toy()
    defence, seeds = Hedge(classifier), torch.arange(4)
    moved = defence.purified(images, seeds)
    replaced = lambda point: defence(point, seeds, "straight_through")  # noqa: E731
    _, gradient = loss_and_gradient(replaced, images, labels)
    assert torch.equal(gradient, loss_and_gradient(classifier, moved, labels)[1])


def test_the_walk_ends_in_ball_and_box_though_its_start_is_not_clipped():
    classifier, images, _ = toy()
    defence = Hedge(classifier, eps=0.031, step_size=0.0, num_steps=1)
    points = []
    classifier.encode_image = _watched(classifier.encode_image, points)
    moved = defence.hedge(torch.zeros_like(images), torch.full_like(images, -0.02))
    assert points[0].max() < 0 and not moved.any()

    moved = Hedge(classifier, eps=0.031).purified(images, torch.arange(4))
    assert (moved - images).abs().max() <= 0.031 + 1e-12 and moved.min() >= 0 and moved.max() <= 1


def _watched(encode, points: list):
    def encode_image(images):
        points.append(images.detach())
        return encode(images)

    return encode_image


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="num_steps=0, which is no count"):
        Hedge(None, num_steps=0)
