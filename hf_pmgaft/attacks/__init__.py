"""Attacks on images in [0,1], by name.

The contract: `attack(classifier, images, labels, *, eps, norm, ..., seeds=None)` returns detached images in [0,1]
inside the ball, of the same dtype; parameters' gradients and flags, training modes and the global random state are as
before. `classifier` is any callable images -> logits; all randomness of an image follows from its seed. An attack for
training takes `num_steps`, `step_size`, `random_start` and `loss_fn(images)` -> loss per image in place of
cross-entropy. `patch` and `corruption` have a size and a severity instead of a ball. A new attack is one file and one
row.
"""

from .any_iterate import AllFooled, AnyIterate, correct, distance, inside
from .autoattack import apgd, apgd_t, components, fab, fab_t, square
from .corruption import CORRUPTIONS, SEVERITIES, corruption
from .cw import cw, minimal_l2
from .noise import normal_noise, sample_seeds, uniform_noise
from .patch import patch
from .pgd import LOSSES, NORMS, fgsm, frozen, input_gradient, known, make_loss, parse_radius, pgd
from .shared import SharedPerturbation, make_attack

ATTACKS = {
    "apgd": apgd,
    "apgd_t": apgd_t,
    "corruption": corruption,
    "cw": cw,
    "fab": fab,
    "fab_t": fab_t,
    "fgsm": fgsm,
    "patch": patch,
    "pgd": pgd,
    "square": square,
}
# What can steer an objective: it takes `loss_fn`, and walks where it leads.
TRAINING_ATTACKS = {"fgsm": fgsm, "pgd": pgd, "shared": SharedPerturbation}

__all__ = [
    "ATTACKS",
    "CORRUPTIONS",
    "LOSSES",
    "NORMS",
    "SEVERITIES",
    "TRAINING_ATTACKS",
    "AllFooled",
    "AnyIterate",
    "SharedPerturbation",
    "apgd",
    "apgd_t",
    "components",
    "correct",
    "corruption",
    "cw",
    "distance",
    "fab",
    "fab_t",
    "fgsm",
    "frozen",
    "input_gradient",
    "inside",
    "known",
    "make_attack",
    "make_loss",
    "minimal_l2",
    "normal_noise",
    "parse_radius",
    "patch",
    "pgd",
    "sample_seeds",
    "square",
    "uniform_noise",
]
