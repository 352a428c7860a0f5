"""A defence is a classifier: what is forwarded, what goes backward, and what is refused."""

import pytest
import torch
from support.defended import GOLDEN, Identity, Quantise, is_golden, loss_and_gradient, toy

from hf_pmgaft.defences import ATTACKERS, Ensemble, RandomNoise


@pytest.mark.parametrize("attacker", ATTACKERS)
def test_a_defence_that_does_nothing_changes_no_bit(attacker):
    classifier, images, labels = toy(torch.float32)
    defended = Identity(classifier).seen_by(attacker)
    assert torch.equal(defended(images), classifier(images))
    _, gradient = loss_and_gradient(defended, images, labels)
    assert torch.equal(gradient, loss_and_gradient(classifier, images, labels)[1])


def test_rounding_has_no_gradient_through_and_the_golden_one_straight_through():
    classifier, images, labels = toy()
    defence = Quantise(classifier, levels=GOLDEN["bpda"]["levels"])
    loss, gradient = loss_and_gradient(defence, images, labels)
    is_golden(loss, GOLDEN["bpda"]["loss"])
    assert not gradient.any()
    _, replaced = loss_and_gradient(defence.seen_by("straight_through"), images, labels)
    is_golden(replaced, GOLDEN["bpda"]["gradient_bpda_identity"])


def test_the_unaware_attack_the_bare_classifier():
    classifier, _, _ = toy()
    defence = Quantise(classifier)
    assert defence.seen_by("unaware") is classifier
    assert defence.device == classifier.device


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
    with pytest.raises(NotImplementedError, match="views has logits alone"):
        Ensemble(classifier).embed(images)
