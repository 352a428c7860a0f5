"""MPM-NCE: sums over the batch, an attack on request, and batches of one caption."""

import torch
from support.objectives import build, close

from hf_pmgaft.objectives import OBJECTIVES, make_objective


def test_both_terms_of_mpm_nce_are_sums():
    objective = make_objective("mpm_nce")
    assert objective.sums == set(objective.weights)


def test_mpm_nce_attacks_only_where_it_is_told_to():
    assert not make_objective("mpm_nce").uses_attack and make_objective("mpm_nce", {"adversarial": True}).uses_attack
    assert [name for name in sorted(OBJECTIVES) if not make_objective(name).uses_attack] == ["clean", "mpm_nce"]


def test_mpm_nce_stays_finite_where_all_captions_are_positives(inputs):
    objective, student, teacher, leaves = build(inputs, {"objective": "mpm_nce", "settings": {}})
    terms = objective.loss(student, teacher, torch.zeros(4, dtype=torch.long))
    z = 100 * torch.nn.functional.normalize(inputs["student_clean_embeds"]) @ inputs["caption_embeds"].T
    close(terms["image_to_text"].detach(), -(0.9 / 4 * z.log_softmax(1)).sum())
    close(terms["text_to_image"].detach(), -(0.9 / 4 * z.log_softmax(0)).sum())
