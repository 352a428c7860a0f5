"""Attacks on images in [0,1], by name.

The contract: `attack(classifier, images, labels, *, eps, norm, num_steps, step_size, random_start, loss_fn=None,
seeds=None)` returns detached images in [0,1] inside the ball, of the same dtype; parameters' gradients and flags,
training modes and the global random state are as before. `classifier` is any callable images -> logits;
`loss_fn(images)` -> loss per image replaces cross-entropy; all randomness of an image follows from its seed. A new
attack is one file and one row.
"""

from .noise import normal_noise, sample_seeds, uniform_noise
from .pgd import LOSSES, NORMS, fgsm, frozen, parse_radius, pgd

ATTACKS = {"fgsm": fgsm, "pgd": pgd}

__all__ = [
    "ATTACKS",
    "LOSSES",
    "NORMS",
    "fgsm",
    "frozen",
    "normal_noise",
    "parse_radius",
    "pgd",
    "sample_seeds",
    "uniform_noise",
]
