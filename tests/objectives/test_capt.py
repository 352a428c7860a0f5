"""CAPT: the balance between its two divergences."""

import pytest
from support.objectives import build

from hf_pmgaft.objectives import make_objective


def test_capt_trusts_the_teacher_as_far_as_it_is_right(inputs):
    objective, student, teacher, _ = build(inputs, {"objective": "capt", "settings": {"logit_scale": 3000.0}})
    fixed = make_objective("capt", {"balance": 0.5}).loss(student, teacher, inputs["labels"])
    right = objective.loss(student, teacher, teacher.clean_logits.argmax(1))
    wrong = objective.loss(student, teacher, teacher.clean_logits.argmin(1))
    assert right["teacher_kl"].item() == pytest.approx(fixed["teacher_kl"].item()) and wrong["teacher_kl"] < 1e-9
    assert wrong["consistency_kl"].item() == pytest.approx(fixed["consistency_kl"].item())
    assert right["consistency_kl"] < 1e-9
    assert objective.weights == {"clean_ce": 1.0, "consistency_kl": 1.0, "teacher_kl": 1.0}
