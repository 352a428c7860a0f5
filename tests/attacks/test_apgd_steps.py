"""The steps of Auto-PGD are those of pyautoattack to the bit, and each walk takes them by its own clock."""

import itertools
import logging
import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_pmgaft.attacks.apgd import apgd_t_walk, apgd_walk
from hf_pmgaft.attacks.losses import margin
from hf_pmgaft.attacks.pyautoattack_runs import Run, SeededTorch

NUM_CLASSES = 6
EPS = {"linf": 0.03, "l2": 0.5, "l1": 4.0}
LIBRARY_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Net(nn.Module):
    """Two layers of float32 with waves between them, so that losses go up and down."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, stride=2).requires_grad_(False)
        self.last = nn.Linear(8 * 9, NUM_CLASSES).requires_grad_(False)

    def forward(self, points):
        return self.last((self.first(points) * 20).sin().flatten(1)) * 10


def make():
    net = Net()
    images = torch.rand(6, 3, 8, 8)
    logits = net(images)
    return net, images, logits.argmax(1), logits.argsort(1, descending=True)


def begin(walk, images, labels, ranking, number=0):
    seeds = torch.arange(len(images)) * 3
    return walk.begin(images, labels, seeds, torch.full_like(seeds, number), ranking)


def step(walk, state, net) -> torch.Tensor:
    """One step of all walks; tells whose next points are their last."""
    points = state["points"].clone().requires_grad_()
    loss = walk.loss(state, net(points))
    gradient = torch.autograd.grad(loss.sum(), points)[0]
    return walk.advance(state, loss.detach(), gradient)


def walked(walk, state, net) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """All points of walks that begin at the same time, and the lengths of their steps."""
    points, step_sizes = [state["points"].clone()], []
    is_last = torch.tensor([False])
    while not is_last.any():
        is_last = step(walk, state, net)
        points.append(state["points"].clone())
        step_sizes.append(state["step_sizes"].clone())
    assert is_last.all()
    return points, step_sizes


def walked_by_the_library(net, images, labels, number, *, norm, num_steps, loss, targets) -> list[torch.Tensor]:
    """All points that pyautoattack's own object asks about, on the noise that its runs have here."""
    library = pytest.importorskip("pyautoattack.autopgd_base")
    points = []

    def noting(x):
        points.append(x.detach().clone())
        return net(x)

    options = {
        "norm": LIBRARY_NORMS[norm],
        "eps": EPS[norm],
        "n_iter": num_steps,
        "logger": logging.getLogger("quiet"),
    }
    if loss == "targeted":
        attack = library.APGDAttack_targeted(noting, **options)
        attack.y_target = targets
    elif loss == "margin":
        kind = type("MarginAPGD", (library.APGDAttack,), {"dlr_loss": staticmethod(margin)})
        attack = kind(noting, **options, loss="dlr")
    else:
        attack = library.APGDAttack(noting, **options, loss=loss)

    everyone = SimpleNamespace(rows=torch.arange)
    numbers = torch.full_like(labels, number)
    noise = SeededTorch(everyone, torch.arange(len(images)) * 3, numbers, window_seed=0)
    attack.init_hyperparam(images)
    with Run(everyone, images, labels, numbers, None, noise).seeded(attack):
        if norm == "l1":
            attack.use_largereps = True
            third = math.ceil(Fraction(3 * num_steps, 10))
            radii = [3.0 * EPS[norm], 2.0 * EPS[norm], 1.0 * EPS[norm]]
            attack.decr_eps_pgd(images, labels, radii, [third, third, num_steps - 2 * third])
        else:
            attack.attack_single_run(images, labels)
    return points


LOSSES = ("ce", "dlr", "margin", "targeted")
CASES = [
    *itertools.product(["linf", "l2"], LOSSES, [1, 5, 30]),
    *itertools.product(["linf", "l2"], ["ce"], [100]),
    *itertools.product(["linf", "l2"], ["targeted"], [40]),
    *itertools.product(["l1"], LOSSES, [3, 4, 5, 30]),
    ("l1", "ce", 170),  # windows of two and three steps
]


@pytest.mark.parametrize(("norm", "loss", "num_steps"), CASES)
def test_every_point_is_the_library_s_to_the_bit(norm, loss, num_steps):
    net, images, labels, ranking = make()
    options = {"norm": norm, "num_steps": num_steps}
    if loss == "targeted":
        walk = apgd_t_walk(eps=EPS[norm], **options, num_classes=NUM_CLASSES)
    else:
        walk = apgd_walk(eps=EPS[norm], **options, loss=loss)
    state = begin(walk, images, labels, ranking, number=2)
    points, step_sizes = walked(walk, state, net)

    theirs = walked_by_the_library(net, images, labels, 2, **options, loss=loss, targets=ranking[:, 3])
    assert len(points) == len(theirs) == num_steps + (3 if norm == "l1" else 1)
    for one, other in zip(points, theirs, strict=True):
        assert torch.equal(one, other)
    if num_steps >= 40:  # some walks went back to their best points where others went on
        assert any(len(sizes.unique()) > 1 for sizes in step_sizes)


def waves(points):
    """Logits by sums along rows, which are the same numbers in any batch."""
    waves = [(points * (5 + number) + number).sin() for number in range(NUM_CLASSES)]
    return torch.stack([wave.flatten(1).sum(1) for wave in waves], dim=1)


@pytest.mark.parametrize(("norm", "loss"), [(norm, loss) for norm in EPS for loss in ("ce", "targeted")])
def test_a_walk_takes_its_own_steps_whoever_else_is_on_the_way(norm, loss):
    _, images, _, _ = make()
    ranking = waves(images).argsort(1, descending=True)
    labels = ranking[:, 0]
    options = {"eps": EPS[norm], "norm": norm, "num_steps": 20}
    walk = apgd_t_walk(**options, num_classes=NUM_CLASSES) if loss == "targeted" else apgd_walk(**options)

    def begin(rows):
        seeds = torch.tensor(rows)
        return walk.begin(images[rows], labels[rows], seeds, seeds % 2, ranking[rows])

    alone = {row: torch.cat(walked(walk, begin([row]), waves)[0]) for row in range(6)}

    # Three more come when the first three are at their seventh step, and stay when these are out.
    state, rows = begin([0, 1, 2]), [0, 1, 2]
    points = {row: [state["points"][row].clone()] for row in rows}
    while rows:
        is_last = step(walk, state, waves)
        for row, point in zip(rows, state["points"], strict=True):
            points[row].append(point.clone())
        if len(points) == 3 and len(points[0]) == 7:
            newcomers = begin([5, 3, 4])
            state = {key: torch.cat([newcomers[key], state[key]]) for key in state}
            rows = [5, 3, 4, *rows]
            is_last = torch.cat([torch.zeros(3, dtype=torch.bool), is_last])
            points |= {row: [point.clone()] for row, point in zip(rows[:3], newcomers["points"], strict=True)}
        state = {key: values[~is_last] for key, values in state.items()}
        rows = [row for row, is_out in zip(rows, is_last.tolist(), strict=True) if not is_out]

    for row in range(6):
        assert torch.equal(torch.stack(points[row]), alone[row])


@pytest.mark.parametrize("norm", EPS)
def test_restarts_begin_elsewhere_and_targets_differ(norm):
    _, images, labels, ranking = make()
    seeds, numbers = torch.zeros(6, dtype=torch.long), torch.arange(6) % 3
    images = images[:1].expand(6, -1, -1, -1).clone()
    walk = apgd_t_walk(eps=EPS[norm], norm=norm, num_targets=3, num_classes=NUM_CLASSES)
    state = walk.begin(images, labels[:1].expand(6), seeds, numbers, ranking[:1].expand(6, -1))
    starts = state["points"].flatten(1)
    assert torch.equal(starts[:3], starts[3:])
    assert len(starts.unique(dim=0)) == 3
    assert state["targets"].tolist() == 2 * ranking[0, 1:4].tolist()


def test_the_state_s_rows_are_written_one_by_one():
    _, images, labels, ranking = make()
    for walk in (apgd_walk(eps=0.1), apgd_walk(eps=4.0, norm="l1"), apgd_t_walk(eps=0.1, num_classes=NUM_CLASSES)):
        state = begin(walk, images, labels, ranking)
        for _ in range(2):
            places = [values.data_ptr() for values in state.values()]
            assert len(set(places)) == len(places)  # whoever seats a walk writes into the rows of one that left
            step(walk, state, waves)


def test_too_few_steps_or_classes_are_refused():
    with pytest.raises(ValueError, match="num_steps=2, but in L1 APGD walks in three parts. Pass 3 or more"):
        apgd_walk(eps=1.0, norm="l1", num_steps=2)
    with pytest.raises(ValueError, match="APGD-T needs.*4 classes, but there are 3"):
        apgd_t_walk(eps=0.1, num_classes=3)
