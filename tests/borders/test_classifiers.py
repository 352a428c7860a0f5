"""What a classifier returns to an attack: logits that it can walk by, or one clear refusal."""

import pytest
import torch
from support.borders import Refused, check, outcomes
from transformers.modeling_outputs import ImageClassifierOutput

from hf_pmgaft.attacks import ATTACKS, early_stopped_pgd, first_fooled, pgd
from hf_pmgaft.attacks.ball import inside

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
LABELS = torch.tensor([0, 1, 2, 0])
WEIGHT = torch.randn(192, 3, generator=torch.Generator().manual_seed(1))
EPS = 8 / 255

NOT_A_TENSOR = "in place of logits [B,K]"
ANOTHER_SHAPE = "where an attack needs logits [B,K]"
NOT_FINITE = Refused("The logits are NaN or infinite", FloatingPointError)


def linear(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1) @ WEIGHT


CLASSIFIERS = {
    "logits": (linear, True),
    "logits of half precision": (lambda x: linear(x).half(), True),
    "logits of bfloat16": (lambda x: linear(x).bfloat16(), True),
    "logits of double precision": (lambda x: linear(x).double(), True),
    "probabilities": (lambda x: linear(x).softmax(1), True),
    "a tuple": (lambda x: (linear(x),), Refused(f"returned tuple {NOT_A_TENSOR}")),
    "a dict": (lambda x: {"logits": linear(x)}, Refused("such as model(images).logits")),
    "an output of transformers": (
        lambda x: ImageClassifierOutput(logits=linear(x)),
        Refused("such as model(images).logits"),
    ),
    "an array": (lambda x: linear(x).detach().numpy(), Refused(f"returned ndarray {NOT_A_TENSOR}")),
    "a list": (lambda x: linear(x).tolist(), Refused(f"returned list {NOT_A_TENSOR}")),
    "nothing": (lambda x: None, Refused(f"returned NoneType {NOT_A_TENSOR}")),
    "one number per image": (lambda x: linear(x)[:, 0], Refused("return torch.stack([-x, x], dim=1)")),
    "a dimension too many": (lambda x: linear(x)[:, None], Refused(ANOTHER_SHAPE)),
    "one class": (lambda x: linear(x)[:, :1], Refused(ANOTHER_SHAPE)),
    "no classes": (lambda x: linear(x)[:, :0], Refused(ANOTHER_SHAPE)),
    "the logits of one image": (lambda x: linear(x)[:1], Refused(ANOTHER_SHAPE)),
    "classes": (lambda x: linear(x).argmax(1), Refused(ANOTHER_SHAPE)),
    "whole numbers": (lambda x: linear(x).long(), Refused(ANOTHER_SHAPE)),
    "fewer classes than labels": (lambda x: linear(x)[:, :2], Refused("labels up to 2, but the classifier has 2")),
    "another device": (lambda x: linear(x).to("meta"), Refused("logits on meta, but the images are on cpu")),
    "NaN": (lambda x: linear(x) * torch.nan, NOT_FINITE),
    "infinity": (lambda x: linear(x) + torch.inf, NOT_FINITE),
}


def first_point(classifier, images, labels, **options):
    return first_fooled(pgd, classifier, images, labels, **options)


WALKS = {
    "pgd": (ATTACKS["pgd"], {"num_steps": 2}),
    "pgd's first point": (first_point, {"num_steps": 2, "norm": "linf"}),
    "fgsm": (ATTACKS["fgsm"], {}),
    "the early stop": (early_stopped_pgd, {"num_steps": 2, "tau": 1}),
    "apgd": (ATTACKS["apgd"], {"num_steps": 2}),
    "cw": (ATTACKS["cw"], {"num_steps": 2, "norm": "l2", "search_steps": 1}),
    "fab": (ATTACKS["fab"], {"num_steps": 2}),
    "fab_t": (ATTACKS["fab_t"], {"num_steps": 2}),
    "square": (ATTACKS["square"], {"num_queries": 2}),
}


@outcomes(CLASSIFIERS)
def test_classifiers_that_attacks_are_passed(given, outcome):
    for attack, options in WALKS.values():
        norm = options.get("norm", "linf")

        def stays_inside(attack=attack, options=options, norm=norm):
            adversarial = attack(given, IMAGES, LABELS, eps=EPS, **options)
            assert adversarial.dtype == IMAGES.dtype
            return bool(inside(IMAGES, adversarial, EPS, norm).all())

        check(stays_inside, outcome)


WITHOUT_GRADIENT = {
    "detached": lambda x: linear(x).detach(),
    "made by NumPy": lambda x: torch.from_numpy(x.detach().numpy().reshape(len(x), -1) @ WEIGHT.numpy()),
    "made without gradients": torch.no_grad()(linear),
}


@pytest.mark.parametrize("classifier", WITHOUT_GRADIENT.values(), ids=WITHOUT_GRADIENT)
@pytest.mark.parametrize(("attack", "options"), WALKS.values(), ids=WALKS)
def test_logits_without_a_gradient_are_for_attacks_that_need_none(attack, options, classifier):
    if attack is ATTACKS["square"]:
        assert attack(classifier, IMAGES, LABELS, eps=EPS, **options).shape == IMAGES.shape
        return
    with pytest.raises(ValueError, match="logits without a gradient"):
        attack(classifier, IMAGES, LABELS, eps=EPS, **options)


def test_a_loss_that_does_not_follow_from_the_images_is_refused():
    weight = torch.ones(1, requires_grad=True)
    for loss_fn in (lambda x: torch.zeros(len(x)), lambda x: weight.expand(len(x))):
        with pytest.raises(ValueError, match="The loss has no gradient at the images"):
            pgd(None, IMAGES, None, eps=EPS, loss_fn=loss_fn)


def test_a_class_may_be_ruled_out_by_minus_infinity():
    adversarial = pgd(
        lambda x: torch.cat([linear(x), torch.full((len(x), 1), -torch.inf)], 1), IMAGES, LABELS, eps=EPS
    )
    assert (adversarial != IMAGES).any()
