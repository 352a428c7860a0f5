"""Attacks on images in [0,1], by name.

The contract: `attack(classifier, images, labels, *, eps, norm, ..., seeds=None)` returns detached images in [0,1]
inside the ball, of the same dtype; parameters' gradients and flags, training modes and the global random state are as
before. `classifier` is any callable images -> logits; all randomness of an image follows from its seed. An attack for
training takes `num_steps`, `step_size`, `random_start` and `loss_fn(images)` -> loss per image in place of
cross-entropy. `patch`, `corruption` and `typographic` have a size, a severity and a height instead of a ball. A new
attack is one file and one row.
"""

from ..modes import frozen
from ..noise import normal_noise, sample_seeds, uniform_noise
from ..registry import check_choice as known
from .any_iterate import AllFooled, AnyIterate, first_fooled
from .apgd import apgd, apgd_t, apgd_t_walk, apgd_walk
from .autoattack import components, fab, fab_t, square
from .ball import NORMS, distance, inside, parse_radius
from .corruption import CORRUPTIONS, SEVERITIES, corruption
from .cw import cw, cw_walk, minimal_l2
from .early_stopped import early_stopped_pgd
from .losses import LOSSES, correct, input_gradient, make_loss
from .patch import patch
from .pgd import fgsm, fgsm_walk, pgd, pgd_walk
from .sea import sea
from .shared_perturbation import SharedPerturbation
from .typographic import typographic, write_words
from .universal import UniversalPerturbation, universal

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
    "typographic": typographic,
    "universal": universal,
}
# Those that have no ball, and so neither radius nor norm.
WITHOUT_BALL = ("corruption", "patch", "typographic")
# Those that `first_fooled` serves, by norm; the others keep an image's first misclassified point by themselves.
SERVED_BY_FIRST_FOOLED = {"cw": ("linf",), "fgsm": NORMS, "pgd": NORMS}
# Those that are walks, which run in any company; `None` where they are not.
WALKS = {"apgd": apgd_walk, "apgd_t": apgd_t_walk, "cw": cw_walk, "fgsm": fgsm_walk, "pgd": pgd_walk}

# Those on the pixels of segmentation alone: `attack(segmenter, images, masks, ...)`. See `AttackSpec.run_dense`.
DENSE_ATTACKS = {"sea": sea}

# What can steer an objective: it takes `loss_fn`, and walks where it leads.
TRAINING_ATTACKS = {"fgsm": fgsm, "pgd": pgd, "shared": SharedPerturbation}

__all__ = [
    "ATTACKS",
    "CORRUPTIONS",
    "DENSE_ATTACKS",
    "LOSSES",
    "NORMS",
    "SERVED_BY_FIRST_FOOLED",
    "SEVERITIES",
    "TRAINING_ATTACKS",
    "WALKS",
    "WITHOUT_BALL",
    "AllFooled",
    "AnyIterate",
    "SharedPerturbation",
    "UniversalPerturbation",
    "apgd",
    "apgd_t",
    "components",
    "correct",
    "corruption",
    "cw",
    "distance",
    "early_stopped_pgd",
    "fab",
    "fab_t",
    "fgsm",
    "first_fooled",
    "frozen",
    "input_gradient",
    "inside",
    "known",
    "make_loss",
    "minimal_l2",
    "normal_noise",
    "parse_radius",
    "patch",
    "pgd",
    "sample_seeds",
    "sea",
    "square",
    "typographic",
    "uniform_noise",
    "universal",
    "write_words",
]
