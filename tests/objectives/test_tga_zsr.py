"""TGA-ZSR, and Comp-TGA that inherits from it: attention maps without contrast."""

import pytest
import torch
from support.objectives import build, total_of


@pytest.mark.parametrize("normalised_over", ["channels", "tokens"])
def test_a_constant_attention_map_is_zero_with_a_finite_gradient(inputs, normalised_over):
    options = {"normalised_over": normalised_over}
    for name in ("tga_zsr", "comp_tga"):
        inputs["student_clean_patches"] = inputs["student_clean_patches"][:, :1].expand(4, 9, 6)
        objective, student, teacher, leaves = build(inputs, {"objective": name, "settings": {}, "options": options})
        total = total_of(objective, objective.loss(student, teacher, inputs["labels"]))
        gradient = torch.autograd.grad(total, leaves["student_clean_patches"])[0]
        assert total.isfinite() and gradient.isfinite().all() and gradient.abs().max() < 100
