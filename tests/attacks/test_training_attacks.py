"""The contract's promises, over every attack of training that is listed."""

import random

import numpy as np
import pytest
import torch
from support.attacked import length

from hf_pmgaft.attacks import TRAINING_ATTACKS
from hf_pmgaft.attacks.losses import cross_entropy
from hf_pmgaft.attacks.options import training_attack

EPS = {"linf": 8 / 255, "l2": 0.5}
# A shared perturbation has one norm, and is that of a whole batch.
PAIRS = [(name, norm) for name in sorted(TRAINING_ATTACKS) for norm in EPS if (name, norm) != ("shared", "l2")]


def attack(name, norm, net, images, labels, **options):
    options = {"eps": EPS[norm], "norm": norm, "random_start": True, **options}
    attack, options = training_attack(name, options)
    return attack(net, images, labels, **options)


@pytest.mark.parametrize(("name", "norm"), [pair for pair in PAIRS if pair[0] != "shared"])
def test_an_image_s_perturbation_depends_on_its_seed_alone(small, name, norm):
    net, images, labels = small
    net, images = net.double(), images.double()
    seeds = torch.tensor([5, -3, 2**40, 7, 11, 0, 1, 2])
    whole = attack(name, norm, net, images, labels, seeds=seeds)
    for part in ([4], [6, 2, 0], [7, 6, 5, 4, 3, 2, 1, 0]):
        alone = attack(name, norm, net, images[part], labels[part], seeds=seeds[part])
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-12)
    other = attack(name, norm, net, images, labels, seeds=seeds + 1)
    assert (length(other - whole, "linf") > 0).all()


@pytest.mark.parametrize(("name", "norm"), PAIRS)
class TestContract:
    def test_images_stay_in_ball_and_box_and_fool_more(self, small, name, norm):
        net, images, labels = small
        images = images.clone()
        images[0], images[1] = 0.0, 1.0
        options = {"step_size": 100.0} if name == "shared" else {}  # of raw gradients, which are small here
        adversarial = attack(name, norm, net, images, labels, **options)
        assert adversarial.min() >= 0 and adversarial.max() <= 1 and not adversarial.requires_grad
        delta = length(adversarial - images, norm)
        assert (delta <= EPS[norm] * (1 + 1e-5)).all() and (delta > 0).all()
        assert cross_entropy(net(adversarial), labels).mean() > cross_entropy(net(images), labels).mean()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_type_is_kept_and_the_ball_holds_in_it(self, small, name, norm, dtype):
        net, images, labels = small
        images = images.to(dtype)
        adversarial = attack(name, norm, lambda x: net(x.float()), images, labels)
        assert adversarial.dtype == dtype
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert (length(adversarial.double() - images.double(), norm) <= EPS[norm] * (1 + 1e-5)).all()

    def test_nothing_is_left_behind(self, small, name, norm):
        net, images, labels = small
        net.train()
        net[1].eval()
        net[0].weight.requires_grad_(False)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        with torch.no_grad():
            attack(name, norm, net, images, labels)
        assert [part.training for part in net] == [True, False, True, True, True, True]
        assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]
        assert all(parameter.grad is None for parameter in net.parameters())
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
        assert not images.requires_grad

    def test_no_radius_no_change(self, small, name, norm):
        net, images, labels = small
        assert torch.equal(attack(name, norm, net, images, labels, eps=0), images)
