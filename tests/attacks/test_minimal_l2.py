"""The minimal perturbation of C&W against a closed form."""

import pytest
import torch

from hf_pmgaft.attacks import minimal_l2


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
