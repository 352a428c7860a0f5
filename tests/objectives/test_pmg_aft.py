"""PMG-AFT: its options, and the terms over guidance texts."""

import torch
from support.objectives import OPTIONS, build, close

from hf_pmgaft.objectives import make_objective


def test_direction_and_clean_gradient_are_options(golden, inputs):
    quirk = next(iter(golden["objectives"]["pmg_aft_released"]["quirks"].values()))
    case = {**golden["objectives"]["pmg_aft_released"], "options": {**OPTIONS["pmg_aft_released"]}}
    case["options"]["kl_direction"] = "reverse"
    objective, student, teacher, _ = build(inputs, case)
    terms = objective.loss(student, teacher, inputs["labels"])
    close(terms["teacher_kl"].detach(), quirk["teacher_kl"], 1e-8)
    close(terms["clean_kl"].detach(), quirk["clean_kl"], 1e-8)

    detached = {"objective": "pmg_aft", "settings": {}, "options": {"clean_gradient": False}}
    objective, student, teacher, leaves = build(inputs, detached)
    sum(objective.loss(student, teacher, inputs["labels"]).values()).backward()
    assert leaves["student_clean_embeds"].grad is None
    assert leaves["student_adversarial_embeds"].grad.abs().sum() > 0


def test_zero_weights_skip_the_passes_that_they_would_need(inputs):
    case = {"objective": "pmg_aft", "settings": {}, "options": {"alpha": 0.0, "beta": 0.0}}
    objective, student, teacher, _ = build(inputs, case)
    assert set(objective.loss(student, teacher, inputs["labels"])) == {"adversarial_ce"}
    assert "clean_embeds" not in student.computed()
    assert teacher.computed() == {}


def test_guidance_terms_range_over_the_guidance_texts(inputs):
    _, student, teacher, _ = build(inputs, {"objective": "pmg_aft", "settings": {}})
    student.classifier.guidance_embeds = teacher.classifier.guidance_embeds = inputs["caption_embeds"]
    terms = make_objective("pmg_aft").loss(student, teacher, inputs["labels"])

    def log_p(embeds):
        return (30 * torch.nn.functional.normalize(embeds) @ inputs["caption_embeds"].T).log_softmax(1)

    p0 = log_p(inputs["teacher_adversarial_embeds"])
    expected = (p0.exp() * (p0 - log_p(inputs["student_adversarial_embeds"]))).sum(1).mean()
    close(terms["teacher_kl"].detach(), expected)
    close(terms["adversarial_ce"].detach(), 2.08936101589)
