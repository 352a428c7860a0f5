"""QT-AFT: the logit scale that it learns."""

import math

import pytest
import torch
from support.objectives import build

from hf_pmgaft.objectives.qt_aft import QTAFT


def test_the_scale_of_qt_aft_starts_at_14_and_is_held_to_its_interval_with_a_gradient(inputs):
    start = QTAFT().parameters()["log_logit_scale"]
    assert start.shape == (1,) and start.item() == pytest.approx(math.log(1 / 0.07))
    values = []
    for log_scale in (math.log(100), 9.0):
        objective, student, teacher, _ = build(inputs, {"objective": "qt_aft", "settings": {}})
        learned = torch.tensor([log_scale], dtype=torch.float64, requires_grad=True)
        student.classifier.learned = {"log_logit_scale": learned}
        term = objective.loss(student, teacher, inputs["labels"])["image_to_caption_ce"]
        values.append((term.item(), torch.autograd.grad(term, learned)[0].item()))
    assert values[0] == pytest.approx(values[1], rel=1e-12) and values[1][1] != 0
