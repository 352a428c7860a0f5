"""The attacks of Carlini and Wagner against closed forms."""

import pytest
import torch
from support.attacked import length, linear

from hf_pmgaft.attacks import correct, cw, minimal_l2, pgd


@pytest.fixture
def problem():
    """A linear model, images far from 0 and 1, their labels, and how far each is from the other class."""
    torch.manual_seed(0)
    weight, images = torch.randn(2, 12), 0.4 + 0.2 * torch.rand(6, 3, 2, 2)
    classifier = linear(weight, torch.zeros(2))
    logits = classifier(images)
    difference = weight[1] - weight[0]
    return classifier, images, logits.argmax(1), (logits[:, 1] - logits[:, 0]).abs() / difference.norm()


def test_in_l2_the_images_nearer_to_another_class_than_the_radius_are_fooled(problem):
    classifier, images, labels, distances = problem
    eps = distances.sort().values[2:4].mean().item()  # between the third and the fourth
    adversarial = cw(classifier, images, labels, eps=eps, num_steps=200)
    fooled = ~correct(classifier(adversarial), labels)
    assert fooled.tolist() == (distances < eps).tolist() and fooled.sum() == 3
    assert torch.equal(adversarial[~fooled], images[~fooled])
    assert (length(adversarial - images, "l2") <= eps * (1 + 1e-5)).all()


def test_in_linf_it_is_pgd_on_the_margin(problem):
    classifier, images, labels, _ = problem
    expected = pgd(classifier, images, labels, eps=0.02, num_steps=7, loss="margin")
    assert torch.equal(cw(classifier, images, labels, eps=0.02, norm="linf", num_steps=7), expected)


def test_another_norm_is_refused(problem):
    classifier, images, labels, _ = problem
    with pytest.raises(ValueError, match="no norm 'l1'.*linf"):
        cw(classifier, images, labels, eps=1.0, norm="l1")


# ---- The smallest perturbation ----


@pytest.mark.parametrize("initial_const", [1e-4, 1.0, 100.0], ids="first constant {}".format)
def test_the_nearest_point_of_a_linear_model_has_a_closed_form(initial_const):
    """With the smallest first constant the search finds nothing and must go up, with the largest it must come down."""
    torch.manual_seed(0)
    weight, images = torch.randn(2, 48, dtype=torch.float64), torch.full((6, 3, 4, 4), 0.5, dtype=torch.float64)
    images += 0.1 * torch.rand_like(images)

    def linear(x):
        return x.double().flatten(1) @ weight.T

    labels = linear(images).argmax(1)
    gap = (linear(images).gather(1, labels[:, None]) - linear(images).gather(1, 1 - labels[:, None])).squeeze(1)
    nearest = gap / (weight[0] - weight[1]).norm()
    labels[5] = 1 - labels[5]  # misclassified from the start
    points = minimal_l2(linear, images, labels, num_steps=100, initial_const=initial_const)
    found, nearest = (points - images).flatten(1).norm(dim=1)[:5], nearest[:5]
    assert (found >= 0.999 * nearest).all() and (found <= 1.02 * nearest).all()
    assert (linear(points).argmax(1) != labels).all()
    torch.testing.assert_close(points[5], images[5], rtol=0, atol=1e-7)
