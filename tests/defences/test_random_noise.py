"""Uniform noise before the encoder."""

import pytest
import torch
from support.defended import GOLDEN, double, is_golden, loss_and_gradient, toy

from hf_pmgaft.defences import RandomNoise

CASE = GOLDEN["ttc"]["cases"]["random_noise_only"]


def test_golden_noise_gives_the_golden_logits_and_gradient():
    classifier, images, labels = toy()
    defence, noise = RandomNoise(classifier), double(CASE["noise"])
    is_golden(defence.add(images, noise) - images, CASE["delta"])
    is_golden(classifier(defence.add(images, noise)), CASE["logits"])
    loss, gradient = loss_and_gradient(lambda point: classifier(defence.add(point, noise)), images, labels)
    is_golden(loss, CASE["loss"])
    is_golden(gradient, CASE["gradient_through"])


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
