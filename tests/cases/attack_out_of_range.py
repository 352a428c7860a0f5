"""Attacks take images outside [0,1] (normalised ones): PGD leaves its ball, AutoAttack's return them untouched."""

import os
import sys

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import torch

from hf_pmgaft import ATTACKS

torch.manual_seed(0)
images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)  # as after (x - mean) / std
weights = torch.randn(3 * 16 * 16, 5)


def model(x):
    return x.flatten(1) @ weights


labels = model(images).argmax(1)  # all right when clean, and a linear model, which every attack fools
bad = 0
for name, options in {
    "pgd": {"num_steps": 5},
    "fgsm": {},
    "apgd": {"num_steps": 5},
    "square": {"num_queries": 20},
    "fab": {"num_steps": 5},
}.items():
    try:
        adversarial = ATTACKS[name](model, images, labels, eps=0.3, **options)
    except ValueError as error:
        print(f"{name}: refused ({error})")
        continue
    bad += 1
    distance = (adversarial - images).abs().max().item()
    print(
        f"{name}: returned, {distance:.2f} away from the images in a ball of 0.3, "
        f"accuracy {(model(adversarial).argmax(1) == labels).float().mean():.2f}"
    )
print("WRONG: images outside [0,1] are attacked wrongly or not at all" if bad else "RIGHT")
sys.exit(bool(bad))
