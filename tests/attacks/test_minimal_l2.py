"""The minimal perturbation of C&W against a closed form."""

import torch

from hf_pmgaft.attacks import minimal_l2


def test_the_nearest_point_of_a_linear_model_has_a_closed_form():
    torch.manual_seed(0)
    weight, images = torch.randn(2, 48, dtype=torch.float64), torch.full((5, 3, 4, 4), 0.5, dtype=torch.float64)
    images += 0.1 * torch.rand_like(images)

    def linear(x):
        return x.double().flatten(1) @ weight.T

    labels = linear(images).argmax(1)
    gap = (linear(images).gather(1, labels[:, None]) - linear(images).gather(1, 1 - labels[:, None])).squeeze(1)
    nearest = gap / (weight[0] - weight[1]).norm()
    found = (minimal_l2(linear, images, labels, num_steps=300) - images).flatten(1).norm(dim=1)
    assert (found >= 0.999 * nearest).all() and (found <= 1.1 * nearest).all()
