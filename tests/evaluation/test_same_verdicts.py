"""Verdicts of every attack, image by image, beside those of an earlier version that ran each attack batch by batch.

`tests/golden/verdicts.json` was written by commit 2789ee1, whose APGD was pyautoattack's, on 32 images of the shipped
model in batches of 64, with one thread. Since then images in L1 and L2 are rounded to 8 bits inside the ball, by which
three figures "robust 8 bit" of L2 rose, each by one image.
"""

import json
from pathlib import Path

import pytest
from support.paths import EMOJI

from hf_pmgaft import ZeroShotDataset, evaluate_robustness
from hf_pmgaft.data import load_images

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/verdicts.json").read_text(encoding="utf-8"))
# In every run: a walk of each kind, several attacks after each other, and batches.
QUICK = {
    "any_iterate: pgd,eps=1.5/255,num_steps=6,restarts=3,loss=margin": 8,
    "any_iterate: apgd,eps=2/255,num_steps=12": 8,
    "any_iterate: apgd_t,eps=1.5/255,num_steps=8,num_targets=4": 64,
    "any_iterate: cw,eps=2/255,norm=linf,num_steps=8": 1,
    "last_iterate: fgsm,eps=1/255": 8,
}


def check_case(emoji, case: str, batch_size: int) -> None:
    pytest.importorskip("pyautoattack")
    model, processor = emoji
    images = load_images(str(EMOJI / "data"), "objects", "test").select(range(32))
    data = ZeroShotDataset(images, processor, None, "an emoji of {}", "objects")
    verdict, attacks = case.split(": ")

    eight_bit = "robust 8 bit" in GOLDEN[case]
    result = evaluate_robustness(
        model,
        processor,
        [data],
        attacks.split(" "),
        verdict=verdict,
        eight_bit=eight_bit,
        batch_size=batch_size,
        probes=False,
        progress=False,
    ).sets[0]

    found = {name: "".join(map(str, values)) for name, values in result.verdicts.items() if name != "sample_id"}
    if eight_bit:
        found["robust 8 bit"] = result.robust_8bit_accuracy
    assert found == GOLDEN[case]


@pytest.mark.parametrize("case", QUICK)
def test_verdicts_are_those_of_before(emoji, case):
    check_case(emoji, case, QUICK[case])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 8, 64])
@pytest.mark.parametrize("case", GOLDEN)
def test_verdicts_are_those_of_before_in_batches_of_any_size(emoji, case, batch_size):
    check_case(emoji, case, batch_size)
