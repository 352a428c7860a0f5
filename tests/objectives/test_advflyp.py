"""AdvFLYP: its attack couples the images of a batch."""

import torch
from support.objectives import ADVERSARIAL, build


def test_advflyp_couples_the_batch_through_the_captions(inputs):
    objective, student, teacher, leaves = build(inputs, {"objective": "advflyp", "settings": {}})
    values = objective.attack_loss(student.classifier, teacher, inputs["labels"])(ADVERSARIAL)
    gradient = torch.autograd.grad(values[0], leaves["student_adversarial_embeds"])[0]
    assert gradient[1:].abs().amin(0).max() > 0
