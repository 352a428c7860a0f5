"""One perturbation for all images, carried from batch to batch."""

import pytest
import torch

from hf_pmgaft.attacks import SharedPerturbation


def shared_problem():
    """A linear model of normalised pixels, whose mean gradient is the same for every perturbation inside the ball."""
    torch.manual_seed(0)
    weight, images = torch.randn(2, 12, dtype=torch.float64), 0.5 + 0.1 * torch.rand(4, 3, 2, 2, dtype=torch.float64)

    def classifier(x):
        return ((x - 0.5) / 0.25).flatten(1) @ weight.T

    classifier.std = torch.full((1, 3, 1, 1), 0.25, dtype=torch.float64)
    return classifier, images, torch.tensor([0, 1, 0, 0]), weight


def test_a_shared_perturbation_climbs_the_mean_raw_gradient_in_normalised_space():
    classifier, images, labels, weight = shared_problem()
    attack = SharedPerturbation()
    options = {"eps": 0.1, "step_size": 0.5, "random_start": False, "loss": "margin"}
    adversarial = attack(classifier, images, labels, **options)
    margins = torch.stack([weight[1 - label] - weight[label] for label in labels.tolist()])
    wanted = (0.5 * margins.mean(0)).clamp(-0.1, 0.1).view(1, 3, 2, 2)
    torch.testing.assert_close(attack.delta, wanted.to(attack.delta.dtype))
    torch.testing.assert_close(adversarial, images + 0.25 * wanted, rtol=1e-6, atol=1e-6)


def test_a_shared_perturbation_is_carried_over_and_begins_anew_with_an_epoch():
    classifier, images, labels, _ = shared_problem()
    attack, options = SharedPerturbation(), {"eps": 0.2, "step_size": 0.01}
    attack.begin(0)
    attack(classifier, images, labels, **options)
    first = attack.delta.clone()
    attack.begin(0)
    attack(classifier, images, labels, **options)
    second = attack.delta.clone()
    assert not torch.equal(first, second)

    resumed = SharedPerturbation()
    resumed.load({name: value.clone() for name, value in {"delta": first, "epoch": torch.tensor(0)}.items()})
    resumed.begin(0)
    resumed(classifier, images, labels, **options)
    assert torch.equal(resumed.delta, second)

    attack.begin(1)
    assert attack.delta is None
    again = SharedPerturbation()
    again.begin(0)
    again(classifier, images, labels, **options)
    assert torch.equal(again.delta, first)


def test_a_shared_perturbation_stays_in_its_ball_and_refuses_other_norms():
    classifier, images, labels, _ = shared_problem()
    adversarial = SharedPerturbation()(classifier, images, labels, eps=0.1, step_size=100.0, num_steps=3)
    assert (
        (adversarial - images).abs().max() <= 0.25 * 0.1 + 1e-7 and adversarial.min() >= 0 and adversarial.max() <= 1
    )
    with pytest.raises(ValueError, match="no norm of a shared perturbation 'l2'"):
        SharedPerturbation()(classifier, images, labels, eps=0.1, norm="l2")
