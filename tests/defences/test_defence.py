"""A defence is a classifier: what is forwarded, what goes backward, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from support.defended import GOLDEN, Identity, Quantise, double, toy

from hf_pmgaft.defences import ATTACKERS, RandomNoise


def gradient(defence, images, labels, **options) -> torch.Tensor:
    point = images.clone().requires_grad_()
    loss = F.cross_entropy(defence(point, **options), labels, reduction="sum")
    return torch.autograd.grad(loss, point)[0]


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_defence_that_does_nothing_changes_no_bit(attacker):
    classifier, images, labels = toy(torch.float32)
    defended = Identity(classifier).seen_by(attacker)
    assert torch.equal(defended(images), classifier(images))
    assert torch.equal(gradient(defended, images, labels), gradient(classifier, images, labels))


def test_rounding_has_no_gradient_through_and_the_golden_one_straight_through():
    classifier, images, labels = toy()
    defence = Quantise(classifier, levels=GOLDEN["bpda"]["levels"])
    loss = F.cross_entropy(defence(images), labels, reduction="sum")
    assert loss.item() == pytest.approx(GOLDEN["bpda"]["loss"], rel=1e-10)
    assert not gradient(defence, images, labels).any()
    replaced = gradient(defence, images, labels, attacker="straight_through")
    torch.testing.assert_close(replaced, double(GOLDEN["bpda"]["gradient_bpda_identity"]), rtol=1e-9, atol=1e-9)


def test_values_are_the_same_to_the_bit_whatever_goes_backward():
    classifier, images, _ = toy(torch.float32)
    defence = Quantise(classifier, levels=7)
    point = images.clone().requires_grad_()
    assert torch.equal(defence(point, attacker="through"), defence(point, attacker="straight_through"))


def test_the_unaware_attack_the_bare_classifier():
    classifier, _, _ = toy()
    defence = Quantise(classifier)
    assert defence.seen_by("unaware") is classifier and defence.device == classifier.device


def test_what_cannot_be_called_is_refused():
    classifier, images, _ = toy()
    with pytest.raises(ValueError, match="no attacker 'aware'"):
        Identity(classifier).seen_by("aware")
    with pytest.raises(ValueError, match="no backward pass of a defence 'unaware'"):
        Identity(classifier)(images, attacker="unaware")
    with pytest.raises(ValueError, match="You passed no seeds to random noise, which draws anew"):
        RandomNoise(classifier)(images)
    with pytest.raises(ValueError, match="seeds of torch.int64 of shape .3,. for 4 images"):
        RandomNoise(classifier)(images, seeds=torch.arange(3))
