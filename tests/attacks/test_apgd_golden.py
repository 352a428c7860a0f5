"""The steps of Auto-PGD on one image, from a clean start and by another first step, are those of RobustVLM's code."""

import pytest
import torch
from support.defended import toy
from support.vlm_golden import GOLDEN

from hf_pmgaft.attacks.apgd_steps import DenseSteps

CASES = GOLDEN["apgd"]["cases"]
LABEL = 4  # as its note says


@pytest.mark.parametrize("name", CASES)
def test_losses_steps_and_best_points_are_the_golden_ones(name):
    case = CASES[name]
    settings = case["settings"]
    classifier, images, _ = toy()
    image = images[:1]
    start = image if case["start"] is None else torch.tensor(case["start"], dtype=torch.float64)
    sign, label = (-1, LABEL) if settings["target"] is None else (1, settings["target"])

    steps = DenseSteps(settings["eps"], "linf", settings["num_steps"], settings["initial_step_over_eps"])
    state = steps.begin_at(image, start)
    losses, lengths = [], []
    for _ in range(settings["num_steps"] + 1):
        points = state["points"].clone().requires_grad_()
        loss = sign * classifier(points).log_softmax(1)[:, label]
        steps.advance(state, loss.detach(), torch.autograd.grad(loss.sum(), points)[0])
        losses.append(loss.item())
        lengths.append(state["step_sizes"].item() / settings["eps"])

    assert losses[1:] == pytest.approx(case["loss"], rel=1e-9)
    assert state["best_losses"].tolist() == pytest.approx(case["best_loss"], rel=1e-9)
    expected = torch.tensor(case["best_images"], dtype=torch.float64)
    assert torch.allclose(state["best_points"], expected, rtol=0, atol=1e-9)
    assert lengths == pytest.approx(case["step_sizes_over_eps"], rel=1e-9)
