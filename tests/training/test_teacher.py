"""The teacher: a copy that stays what it was, or the student with its tuning off; never a part of the graph."""

import pytest
import torch
from peft import LoraConfig
from support.tuned import shake, two_blocks

from hf_pmgaft.training.teacher import Teacher
from hf_pmgaft.tuning import PeftAdapter, RAdapter, WholeVisionTower

PIXELS = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("tuning", "has_tower"),
    [(WholeVisionTower(), True), (RAdapter(), False), (PeftAdapter(LoraConfig(target_modules=["q_proj"])), False)],
    ids=["whole tower", "r_adapter", "peft"],
)
def test_it_stays_the_model_before_training_and_keeps_no_graph(tuning, has_tower):
    before = two_blocks().eval().get_image_features(PIXELS).pooler_output
    student = tuning.prepare(two_blocks()).eval()
    teacher = Teacher.of(None, student)
    teacher.student = student
    assert teacher.is_student != has_tower
    shake(student)

    embeds = teacher.encode(PIXELS.clone().requires_grad_())
    torch.testing.assert_close(embeds, before)
    assert not embeds.requires_grad
    assert not has_tower or not any(p.requires_grad for p in teacher.tower.parameters())


def test_a_given_model_is_copied_and_left_as_it_is():
    given, student = two_blocks(), two_blocks()
    shake(given)
    wanted = given.eval().get_image_features(PIXELS).pooler_output
    teacher = Teacher.of(given, student)
    teacher.student = student
    torch.testing.assert_close(teacher.encode(PIXELS), wanted)
    assert all(parameter.requires_grad for parameter in given.parameters())

    for parameter in given.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(teacher.encode(PIXELS), wanted)
