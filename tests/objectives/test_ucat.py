"""UCAT: its divergence where student and teacher are close."""

import torch
from support.objectives import ADVERSARIAL, CLEAN, close

from hf_pmgaft.objectives import make_objective
from hf_pmgaft.zero_shot import Views, ZeroShotClassifier


def test_the_divergence_of_ucat_keeps_its_digits_where_student_and_teacher_are_close():
    torch.manual_seed(0)
    cosines = 0.2 + 0.04 * torch.randn(8, 1000)
    near = (cosines + 1e-4 * torch.randn(8, 1000)).requires_grad_()

    def divergence(own, target):
        classifier = ZeroShotClassifier(None, torch.eye(2), 1.0, [0.0], [1.0])
        student, teacher = Views(classifier, CLEAN, ADVERSARIAL), Views(classifier, CLEAN)
        student.adversarial_logits, teacher.clean_logits = own, target
        return make_objective("ucat").loss(student, teacher, torch.zeros(8, dtype=torch.long))["dirichlet_kl"]

    value = divergence(near, cosines)
    gradient = torch.autograd.grad(value, near)[0]
    exact = near.detach().double().requires_grad_()
    own, target = exact / 0.07, cosines.double() / 0.07
    kl = (target.softmax(1) * (target.log_softmax(1) - own.log_softmax(1))).sum(1)
    closed_form = (((cosines.double() + 1) / 0.07).exp().sum(1) * kl).mean()
    close(value.detach(), closed_form.detach(), 1e-4)
    close(gradient, torch.autograd.grad(closed_form, exact)[0], 1e-4)
