"""Uniform noise before the encoder."""

import pytest
import torch
from support.defended import GOLDEN, double, toy

from hf_pmgaft.defences import RandomNoise

CASE = GOLDEN["ttc"]["cases"]["random_noise_only"]


def test_golden_noise_gives_the_golden_logits_and_gradient():
    classifier, images, labels = toy()
    point = images.clone().requires_grad_()
    noisy = RandomNoise(classifier).add(point, double(CASE["noise"]))
    torch.testing.assert_close(noisy - images, double(CASE["delta"]), rtol=0, atol=1e-12)

    logits = classifier(noisy)
    torch.testing.assert_close(logits, double(CASE["logits"]), rtol=1e-10, atol=1e-10)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    gradient = torch.autograd.grad(loss, point)[0]
    torch.testing.assert_close(gradient, double(CASE["gradient_through"]), rtol=1e-6, atol=1e-6)


def test_noise_fills_the_ball_and_stays_in_the_box():
    classifier, _, _ = toy()
    defence = RandomNoise(classifier, eps="51/255")
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 40, 40)
    delta = defence.purified(images, torch.arange(3)) - images

    black, grey, white = delta.flatten(1)
    assert black.min() == 0 and 0.19 < black.max() <= 0.2 + 1e-6
    assert -0.2 - 1e-6 <= grey.min() < -0.19 and 0.19 < grey.max() <= 0.2 + 1e-6 and grey.mean().abs() < 0.01
    assert white.max() == 0 and -0.2 - 1e-6 <= white.min() < -0.19


def test_a_radius_is_read_and_checked():
    classifier, _, _ = toy()
    assert RandomNoise(classifier, eps="2/255").eps == 2 / 255
    with pytest.raises(ValueError, match="You passed the radius 4, but pixels go from 0 to 1"):
        RandomNoise(classifier, eps=4)
