"""Images, labels and seeds that attacks are called with."""

from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from support.borders import Refused, check, outcomes

from hf_pmgaft.attacks import (
    ATTACKS,
    TRAINING_ATTACKS,
    WITHOUT_BALL,
    UniversalPerturbation,
    early_stopped_pgd,
    first_fooled,
    minimal_l2,
)

torch.manual_seed(0)
IMAGES = torch.rand(4, 3, 16, 16)
WEIGHTS = torch.randn(3 * 16 * 16, 5)
FOLDER = TemporaryDirectory()
UniversalPerturbation(torch.randn(3, 16, 16), eps=0.02).save(f"{FOLDER.name}/noise.safetensors")
OPTIONS = {
    "pgd": {"num_steps": 2},
    "apgd": {"num_steps": 3},
    "apgd_t": {"num_steps": 3, "num_targets": 2},
    "fab": {"num_steps": 2},
    "fab_t": {"num_steps": 2, "num_targets": 2},
    "square": {"num_queries": 5},
    "cw": {"num_steps": 3, "search_steps": 1},
    "patch": {"size": 3, "num_steps": 2, "places": 1},
    "corruption": {"kind": "brightness", "severity": 1},
    "typographic": {"class_names": list("abcde"), "height": 1.0, "words": 2, "places": 1},
    "universal": {"file": f"{FOLDER.name}/noise.safetensors"},
}


def classifier(images: torch.Tensor) -> torch.Tensor:
    return images.float().flatten(1) @ WEIGHTS


LABELS = classifier(IMAGES).argmax(1)


def first_fooled_pgd(*args, **options):
    return first_fooled(ATTACKS["pgd"], *args, norm="linf", num_steps=2, **options)


def nearest(classifier, images, labels, eps):
    return minimal_l2(classifier, images, labels, num_steps=2, search_steps=1)


def attacks():
    """Each attack as one that takes classifier, images, labels and eps."""
    named = {name: (attack, OPTIONS.get(name, {})) for name, attack in ATTACKS.items()}
    named["cw linf"] = (ATTACKS["cw"], {"norm": "linf", "num_steps": 2})
    named["shared"] = (TRAINING_ATTACKS["shared"](), {})
    named["early stopped"] = (early_stopped_pgd, {"num_steps": 2})
    named["first fooled"] = (first_fooled_pgd, {})
    named["minimal_l2"] = (nearest, {})
    return named


def run(name: str, images, labels) -> torch.Tensor:
    attack, options = attacks()[name]
    ball = {} if name in WITHOUT_BALL else {"eps": 0.02}
    return attack(classifier, images, labels, **ball, **options)


# ---- Images ----

NORMALISED = (IMAGES - 0.5) / 0.25
CASES = {
    "normalised": (NORMALISED, Refused("images * std + mean")),
    "0 to 255": (IMAGES * 255, Refused("Divide them by 255")),
    "uint8": ((IMAGES * 255).to(torch.uint8), Refused("torch.uint8")),
    "NaN": (IMAGES.where(IMAGES > 0.1, torch.nan), Refused("NaN")),
    "infinite": (IMAGES.where(IMAGES > 0.1, torch.inf), Refused("to inf")),
    "one image without a batch": (IMAGES[0], Refused("shape (3, 16, 16)")),
    "videos": (IMAGES[:, None], Refused("shape (4, 1, 3, 16, 16)")),
    "no images": (IMAGES[:0], Refused("nothing to attack")),
    "NumPy": (IMAGES.numpy(), Refused("images as ndarray")),
    "a list": ([*IMAGES], Refused("images as list")),
    "complex numbers": (IMAGES.to(torch.complex64), Refused("complex64")),
    "a little below 0": (IMAGES - 1e-3, Refused("from -")),
    "what a cubic filter overshoots": (IMAGES * 1.1 - 0.05, Refused("pixels go from 0 to 1")),
    "none": (None, Refused("images as NoneType")),
}


@pytest.mark.parametrize("name", attacks())
@outcomes(CASES)
def test_images(name, given, outcome):
    check(lambda: run(name, given, LABELS), outcome)


ROUND_OFF = {
    "float32, 1e-6 too high": IMAGES.clone().index_fill(1, torch.tensor([0]), 1 + 9e-7),
    "float32, 1e-6 too low": IMAGES.clone().index_fill(1, torch.tensor([0]), -9e-7),
    "float64": IMAGES.double().index_fill(1, torch.tensor([0]), 1 + 9e-7),
    "bfloat16, one unit too high": IMAGES.bfloat16().index_fill(1, torch.tensor([0]), 1 + 2**-7),
    "float16, one unit too high": IMAGES.half().index_fill(1, torch.tensor([0]), 1 + 2**-10),
}


@pytest.mark.parametrize("images", ROUND_OFF.values(), ids=ROUND_OFF)
@pytest.mark.parametrize("name", ["pgd", "apgd", "square", "corruption", "first fooled"])
def test_what_round_off_took_out_of_the_range_is_as_if_it_had_not(name, images):
    assert images.max() > 1 or images.min() < 0
    adversarial = run(name, images, LABELS)
    assert torch.equal(adversarial, run(name, images.clamp(0, 1), LABELS))
    assert adversarial.min() >= 0 and adversarial.max() <= 1


# ---- Labels ----

ONE_HOT = torch.nn.functional.one_hot(LABELS, 5)
LABEL_CASES = {
    "int32": (LABELS.int(), "as int64"),
    "int16": (LABELS.short(), "as int64"),
    "int8": (LABELS.char(), "as int64"),
    "uint8": (LABELS.byte(), "as int64"),
    "uint16": (LABELS.to(torch.uint16), "as int64"),
    "one-hot": (ONE_HOT, Refused("argmax(dim=1)")),
    "one-hot floats": (ONE_HOT.float(), Refused("labels.argmax(dim=1)")),
    "to be ignored": (torch.full_like(LABELS, -100), Refused("as low as -100")),
    "one to be ignored": (torch.tensor([-1, 0, 1, 2]), Refused("as low as -1")),
    "one class too many": (torch.tensor([0, 1, 2, 5]), Refused("5 classes (0 to 4)")),
    "floats": (LABELS.float(), Refused("torch.float32")),
    "truth values": (LABELS > 1, Refused("torch.bool")),
    "NumPy": (LABELS.numpy(), Refused("labels as ndarray")),
    "a list": (LABELS.tolist(), Refused("labels as list")),
    "one number": (LABELS[0], Refused("labels of shape ()")),
    "fewer than images": (LABELS[:3], Refused("labels of shape (3,) for 4 images")),
    "another device": (LABELS.to("meta"), Refused("labels on meta")),
    "three dimensions": (LABELS.view(4, 1, 1), Refused("labels of shape (4, 1, 1)")),
    "columns of none": (LABELS[:, None][:, :0], Refused("labels of shape (4, 0)")),
    "none": (None, Refused("no labels")),
}


@pytest.mark.parametrize("name", sorted(set(attacks()) - {"corruption", "universal"}))  # which looks at no labels
@outcomes(LABEL_CASES)
def test_labels(name, given, outcome):
    right = run(name, IMAGES, LABELS) if outcome == "as int64" else outcome
    check(lambda: run(name, IMAGES, given), right)


@pytest.mark.parametrize("name", sorted(set(attacks()) - {"corruption", "universal"}))
def test_labels_in_a_column_are_the_same_labels(name):
    torch.testing.assert_close(run(name, IMAGES, LABELS[:, None]), run(name, IMAGES, LABELS))


def test_two_classes_may_be_right_at_once():
    labels = torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0]])
    assert run("pgd", IMAGES, labels).shape == IMAGES.shape  # five classes, so that nothing is one-hot here


def test_labels_that_no_loss_looks_at_may_be_anything():
    ids = torch.tensor([2**40, -7, 3, 2**20])  # as of batches without classes
    options = {"eps": 0.02, "loss_fn": lambda images: images.flatten(1).sum(1)}
    for name in ("pgd", "fgsm"):
        attack = TRAINING_ATTACKS[name]
        assert torch.equal(attack(None, IMAGES, ids, **options), attack(None, IMAGES, None, **options))


SEED_CASES = {
    "int32": (torch.arange(4, dtype=torch.int32), torch.Size([4, 3, 16, 16])),
    "too few": (torch.arange(3), Refused("one per image")),
    "floats": (torch.arange(4.0), Refused("torch.float32")),
    "a number": (0, Refused("seeds of 0")),
    "a list": ([0, 1, 2, 3], Refused("seeds of [0, 1, 2, 3]")),
    "NumPy": (np.arange(4), Refused("one per image")),
    "a column": (torch.arange(4)[:, None], Refused("shape (4, 1)")),
    "truth values": (torch.ones(4, dtype=torch.bool), Refused("torch.bool")),
    "another device": (torch.arange(4, device="meta"), Refused("seeds on meta")),
    "negative and large": (torch.tensor([-1, 2**62, 0, 5]), torch.Size([4, 3, 16, 16])),
}


@pytest.mark.parametrize("name", ["pgd", "apgd", "patch", "corruption", "early stopped", "shared"])
@outcomes(SEED_CASES)
def test_seeds(name, given, outcome):
    attack, options = attacks()[name]
    ball = {} if name in WITHOUT_BALL else {"eps": 0.02}
    check(lambda: attack(classifier, IMAGES, LABELS, **ball, **options, seeds=given).shape, outcome)
