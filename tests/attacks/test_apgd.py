"""Auto-PGD comes to what pyautoattack comes to, run after run."""

import logging
import sys

import pytest
import torch
from support.exact import make

from hf_pmgaft.attacks import apgd, apgd_t, pyautoattack_runs
from hf_pmgaft.attacks.losses import margin

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPS = {"linf": 0.012, "l2": 0.22, "l1": 1.5}


def run_by_the_library(net, images, labels, *, norm, loss, restarts) -> torch.Tensor:
    """The first misclassified points on runs of the library's own objects; targets are as many as restarts."""
    library = pyautoattack_runs.library_module("autopgd_base")
    quiet = logging.getLogger("quiet")
    quiet.disabled = True
    kinds = {
        "ce": library.APGDAttack,
        "dlr": library.APGDAttack,
        "margin": type("MarginAPGD", (library.APGDAttack,), {"dlr_loss": staticmethod(margin)}),
        "targeted": library.APGDAttack_targeted,
    }

    def walk(run):
        options = {"norm": NORMS[norm], "eps": EPS[norm], "n_iter": 20, "logger": quiet}
        if loss != "targeted":
            options["loss"] = "ce" if loss == "ce" else "dlr"
        attack = kinds[loss](run.watch, **options)
        attack.y_target = run.ranking.gather(1, run.numbers.unsqueeze(1) + 1).squeeze(1)
        attack.init_hyperparam(run.images)
        with run.seeded(attack):
            if norm == "l1":
                attack.decr_eps_pgd(run.images, run.labels, [3.0 * EPS[norm], 2.0 * EPS[norm], EPS[norm]], [6, 6, 8])
            else:
                attack.attack_single_run(run.images, run.labels)

    runs = [range(number, number + 1) for number in range(restarts)]
    return pyautoattack_runs.run_after_run(walk, runs, net, images, labels, EPS[norm], norm, torch.arange(len(images)))


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin", "targeted"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_result_is_that_of_the_library_run_after_run(norm, loss):
    pytest.importorskip("pyautoattack")
    net, images, labels = make()
    options = {"eps": EPS[norm], "norm": norm, "num_steps": 20}
    if loss == "targeted":
        adversarial = apgd_t(net, images, labels, **options, num_targets=3)
    else:
        adversarial = apgd(net, images, labels, **options, loss=loss, restarts=3)

    theirs = run_by_the_library(net, images, labels, norm=norm, loss=loss, restarts=3)
    fooled = (adversarial != images).flatten(1).any(1)
    assert fooled.any() and not fooled.all()  # there is something to be equal about, and something that stands
    assert torch.equal(adversarial, theirs)


@pytest.mark.parametrize(("num_classes", "options", "count"), [(6, {}, 5), (6, {"num_targets": 2}, 2), (12, {}, 9)])
def test_targets_are_as_many_as_there_are_other_classes(num_classes, options, count):
    net, images, labels = make(num_classes)
    sizes = []

    def noting(points):
        sizes.append(len(points))
        return net(points)

    apgd_t(noting, images, labels, eps=1e-5, num_steps=3, **options)
    assert sizes == [1, 12, *[12] * (4 * count)]


def test_too_few_classes_and_steps_are_refused():
    net, images, labels = make(3, size=2)
    with pytest.raises(ValueError, match="APGD-T needs.*4 classes, but there are 3"):
        apgd_t(net, images, labels, eps=0.02)
    with pytest.raises(ValueError, match="in L1 APGD walks in three parts"):
        apgd(net, images, labels, eps=1.0, norm="l1", num_steps=2)
    net, images, labels = make(2, size=2)
    with pytest.raises(ValueError, match="third largest logit, but there are 2 classes"):
        apgd(net, images, labels, eps=1.0, norm="l2", loss="dlr")


def test_only_its_walk_in_l1_needs_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    net, images, labels = make(size=2)
    for norm in ("linf", "l2"):
        adversarial = apgd(net, images, labels, eps=0.5, norm=norm, num_steps=3)
        assert (adversarial != images).any()
    with pytest.raises(ImportError, match=r"pip install.*hf_pmgaft\[eval\]"):
        apgd(net, images, labels, eps=1.0, norm="l1")
