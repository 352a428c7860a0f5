"""Anti-adversary: golden values, also where cross-entropy is round-off, and nothing is clipped."""

import pytest
import torch
from support.defended import GOLDEN, is_golden, loss_and_gradient, toy

from hf_pmgaft.defences import AntiAdversary

CASES = GOLDEN["anti_adversary"]["cases"]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@every_case
@pytest.mark.parametrize("attacker", ["through", "straight_through"])
def test_values_and_gradients_are_the_golden_ones(case, attacker):
    classifier, images, labels = toy()
    defence = AntiAdversary(classifier, **case["settings"])
    is_golden(defence.purified(images, attacker=attacker) - images, case["delta"])
    is_golden(defence(images, attacker=attacker), case["logits"])
    loss, gradient = loss_and_gradient(defence.seen_by(attacker), images, labels)
    is_golden(loss, case["loss"])
    is_golden(gradient, case["gradient_through"])


@every_case
def test_signs_are_right_in_float32_where_cross_entropy_is_round_off(case):
    classifier, images, _ = toy(torch.float32)
    moved = AntiAdversary(classifier, **case["settings"]).purified(images)
    is_golden(moved - images, case["delta"], 1e-4)


def test_nothing_is_clipped():
    classifier, images, _ = toy()
    moved = AntiAdversary(classifier).purified(images)
    assert moved.min() < -0.2 and moved.max() > 1.05


def test_what_cannot_run_is_refused():
    with pytest.raises(ValueError, match="num_steps=0, which is no count"):
        AntiAdversary(None, num_steps=0)
    with pytest.raises(ValueError, match="You passed the step size 4, but"):
        AntiAdversary(None, step_size=4)
