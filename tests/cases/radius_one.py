"""--eps 1, as the code of TeCoA and PMG-AFT writes 1/255: taken as the whole range, or refused by another number."""

import os
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
from hf_pmgaft import AttackSpec, PMGAFTConfig


def check_attack(spec):
    return AttackSpec.parse(",".join([spec.pop("attack"), *(f"{key}={value}" for key, value in spec.items())]))


bad = 0
for name, ask in {
    "eps 2": lambda: check_attack({"attack": "pgd", "eps": "2", "num_steps": 20}),
    "eps 1, 20 steps": lambda: check_attack({"attack": "pgd", "eps": "1", "num_steps": 20}),
    "eps 1, AutoAttack": lambda: check_attack({"attack": "autoattack", "version": "fast", "eps": "1"}),
    "eps 1 of training, 2 steps": lambda: PMGAFTConfig(tempfile.mkdtemp(), eps="1", num_steps=2),
    "eps 1 of training, 3 steps": lambda: PMGAFTConfig(tempfile.mkdtemp(), eps="1", num_steps=3),
}.items():
    try:
        ask()
        fault, outcome = True, "taken: a ball of all images"
    except ValueError as error:
        fault, outcome = "radius 1.25" in str(error), str(error)[:120]
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {name}: {outcome}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
