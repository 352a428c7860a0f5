"""Labels of attacks are not checked: int32 and uint8 fail or not by loss, one-hot and -100 change the attack."""

import os
import sys

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import torch

from hf_pmgaft import ATTACKS

torch.manual_seed(0)
images, weights = torch.rand(4, 3, 16, 16), torch.randn(3 * 16 * 16, 5)


def model(x):
    return x.flatten(1) @ weights


labels = model(images).argmax(1)
one_hot = torch.nn.functional.one_hot(labels, 5)
bad = 0
for name, given in {
    "int32": labels.int(),
    "uint8": labels.to(torch.uint8),
    "one-hot int64": one_hot,
    "-100": torch.full_like(labels, -100),
    "out of range": labels + 100,
    "numpy": labels.numpy(),
}.items():
    for loss in ("ce", "margin"):
        options = {"eps": "4/255", "num_steps": 5, "loss": loss}
        try:
            same = torch.equal(
                ATTACKS["pgd"](model, images, given, **options), ATTACKS["pgd"](model, images, labels, **options)
            )
            outcome, fault = "as with int64" if same else "another attack, silently", not same
        except Exception as error:
            outcome = f"{type(error).__name__}: {str(error)[:70]}"
            fault = not (isinstance(error, ValueError) and "label" in str(error))
        bad += fault
        print(f"{'WRONG' if fault else 'right'}: labels {name}, loss {loss}: {outcome}")
print(f"WRONG in {bad} of 12" if bad else "RIGHT")
sys.exit(bool(bad))
