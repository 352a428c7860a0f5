"""How many passes an attack takes at most is what it takes on an image that it does not fool."""

import pytest
import torch

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks.passes import Passes, most_passes

NUM_CLASSES = 6
ATTACKS = [
    "pgd,eps=1/255,num_steps=7",
    "pgd,eps=1/255,num_steps=7,restarts=3",
    "pgd,eps=0.1,norm=l2,num_steps=4,loss=margin",
    "fgsm,eps=1/255",
    "cw,eps=0.1,num_steps=6,search_steps=3",
    "cw,eps=1/255,norm=linf,num_steps=6",
    "patch,size=3,num_steps=5,places=2",
    "corruption,kind=jpeg,severity=3",
    "typographic,height=1.0,words=3,places=2",
    "typographic,height=1.0,words=9,places=2",
]
OF_AUTOATTACK = [
    "apgd,eps=1/255,num_steps=10",
    "apgd,eps=1/255,num_steps=10,restarts=2,loss=dlr",
    "apgd,eps=2,norm=l1,num_steps=10",
    "apgd_t,eps=1/255,num_steps=10,num_targets=3",
    "apgd_t,eps=1/255,num_steps=10,num_targets=9",
    "apgd_t,eps=2,norm=l1,num_steps=10,num_targets=2",
    "fab,eps=1/255,num_steps=8,restarts=2",
    "fab_t,eps=1/255,num_steps=8,num_targets=3,restarts=2",
    "square,eps=1/255,num_queries=20,restarts=2",
]


class Counted(torch.autograd.Function):
    """The identity, which counts how often a gradient comes back through it."""

    @staticmethod
    def forward(context, logits, passes):
        context.passes = passes
        return logits.clone()

    @staticmethod
    def backward(context, gradient):
        context.passes["backward"] += 1
        return gradient, None


def taken(text: str, scale: float, any_iterate: bool) -> Passes:
    """The passes of an attack on two images whose logits grow with `scale` in the pixels."""
    passes = {"forward": 0, "backward": 0}
    weights = torch.randn(3 * 16 * 16, NUM_CLASSES, generator=torch.Generator().manual_seed(0))

    def classifier(images):
        passes["forward"] += 1
        logits = images.flatten(1) @ weights * scale + torch.linspace(5, 0, NUM_CLASSES)
        return Counted.apply(logits, passes)

    images = torch.linspace(0.4, 0.6, 2 * 768).view(2, 3, 16, 16)
    labels, seeds = torch.tensor([0, 0]), torch.tensor([3, 4])
    AttackSpec.parse(text).run(classifier, images, labels, seeds, any_iterate=any_iterate, class_names=list("abcdef"))
    return Passes(**passes)


def check(text: str, any_iterate: bool) -> None:
    most = most_passes(AttackSpec.parse(text), NUM_CLASSES)
    robust = taken(text, 1e-3, any_iterate)
    assert robust.backward == most.backward
    assert 0 <= most.forward - robust.forward <= 2
    weak = taken(text, 1.0, any_iterate)
    assert weak.forward <= most.forward and weak.backward <= most.backward


@pytest.mark.parametrize("any_iterate", [False, True])
@pytest.mark.parametrize("text", ATTACKS)
def test_no_image_takes_more_passes_than_one_that_withstands(text, any_iterate):
    check(text, any_iterate)


@pytest.mark.parametrize("any_iterate", [False, True])
@pytest.mark.parametrize("text", OF_AUTOATTACK)
def test_no_image_takes_more_passes_of_autoattack_than_one_that_withstands(text, any_iterate):
    pytest.importorskip("pyautoattack")
    check(text, any_iterate)


def test_autoattack_takes_what_was_counted_on_a_robust_image():
    pytest.importorskip("pyautoattack")
    parts = AttackSpec("autoattack", {"version": "standard", "eps": "4/255", "norm": "linf"}).expand(10)
    passes = [most_passes(part, 10) for part in parts]
    assert sum(each.backward for each in passes) == 100 + 9 * 100 + 9 * 100
    assert 5_000 < passes[-1].forward <= 5_002
