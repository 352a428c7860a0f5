"""The attacks of pyautoattack: the same bits with the original's noise, and none of its runner's side effects."""

import inspect
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.exact import Net, make
from torch import nn

from hf_pmgaft.attacks import ATTACKS, apgd, components, correct, fab_t, inside, pyautoattack_runs

pyautoattack = pytest.importorskip("pyautoattack")

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPS = {"linf": 0.012, "l2": 0.22, "l1": 1.5}
NAMES = {"fab": "fab", "fab-t": "fab_t", "square": "square"}


class Recorder:
    """A classifier that notes the first misclassified point inside the ball of each image."""

    def __init__(self, net, images, labels, eps, norm):
        self.net, self.images, self.labels, self.eps, self.norm = net, images, labels, eps, norm
        self.first: dict[int, torch.Tensor] = {}

    def __call__(self, points):
        logits = self.net(points)
        with torch.no_grad():  # the images are far apart, so that a point belongs to the nearest
            rows = torch.cdist(points.detach().flatten(1), self.images.flatten(1)).argmin(1)
            wrong = ~correct(logits, self.labels[rows])
            wrong &= inside(self.images[rows], points, self.eps, self.norm)
        for place in wrong.nonzero().flatten().tolist():
            self.first.setdefault(rows[place].item(), points[place].detach().clamp(0, 1))
        return logits


class OriginalNoise:
    """Draws from one generator, as the original does from the global one."""

    generator = torch.Generator()

    def __init__(self, *args):
        pass

    def __getattr__(self, name):
        return getattr(torch, name)

    def rand(self, shape):
        return torch.rand(tuple(shape), generator=self.generator)

    def randn(self, shape):
        return torch.randn(tuple(shape), generator=self.generator)

    def randn_like(self, x):
        return torch.randn(x.shape, generator=self.generator)


def original(kind, classifier, eps, norm, num_targets=9, restarts=1, steps=20):
    """pyautoattack's own object for an attack, with few steps."""
    attack = pyautoattack.AutoAttack(classifier, eps=eps, norm=NORMS[norm], attacks=[kind], version="custom", seed=7)
    attack.fab.n_restarts, attack.fab.n_target_classes = restarts, num_targets
    attack.fab.n_iter, attack.square.n_queries = steps, 20 * steps
    return attack


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", NAMES)
def test_same_bits_as_the_original_with_its_noise(kind, norm, monkeypatch):
    net, images, labels = make()
    eps = EPS[norm] * (3 if kind == "square" else 0.8)
    recorder = Recorder(net, images, labels, eps, norm)
    restarts = 3 if kind == "fab" else 1
    found, _ = original(kind, recorder, eps, norm, restarts=restarts).run_standard_evaluation(images, labels)

    monkeypatch.setattr(pyautoattack_runs, "SeededTorch", OriginalNoise)
    OriginalNoise.generator.manual_seed(7)
    options = {"num_queries": 400} if kind == "square" else {"num_steps": 20}
    options |= {"restarts": restarts} if restarts > 1 else {}
    adversarial = ATTACKS[NAMES[kind]](net, images, labels, eps=eps, norm=norm, **options)

    fooled = [row for row in range(len(images)) if not torch.equal(adversarial[row], images[row])]
    assert 0 < len(fooled) < len(images)  # there is something to be equal about, and something that stands
    assert fooled == (~correct(net(found), labels)).nonzero().flatten().tolist() == sorted(recorder.first)
    assert all(torch.equal(adversarial[row], recorder.first[row]) for row in fooled)


APGD = {"attack": "apgd", "loss": "ce", "num_steps": 100, "restarts": 1}
APGD_DLR, APGD_MARGIN = {**APGD, "loss": "dlr"}, {**APGD, "loss": "margin"}
APGD_T = {"attack": "apgd_t", "num_steps": 100, "num_targets": 9}
FAB = {"attack": "fab", "num_steps": 100, "restarts": 1}
FAB_T = {"attack": "fab_t", "num_steps": 100, "num_targets": 9, "restarts": 1}
SQUARE = {"attack": "square", "num_queries": 5000, "restarts": 1}
FIVE = {"restarts": 5}
PLUS = [{**APGD, **FIVE}, {**APGD_DLR, **FIVE}, {**FAB, **FIVE}, SQUARE, APGD_T, FAB_T]
VERSIONS = {
    # Version, norm and number of classes -> what is run, in this order.
    ("fast", "linf", 10): [APGD, APGD_T],
    ("fast", "l2", 10): [APGD, APGD_T],
    ("fast", "l1", 10): [{**APGD, **FIVE}, {**APGD_T, "num_targets": 5}],
    ("fast", "linf", 3): [APGD, APGD_MARGIN],
    ("standard", "linf", 10): [APGD, APGD_T, FAB_T, SQUARE],
    ("standard", "l2", 10): [APGD, APGD_T, FAB_T, SQUARE],
    ("standard", "l1", 10): [{**APGD, **FIVE}, {**APGD_T, "num_targets": 5}, FAB_T, SQUARE],
    ("standard", "linf", 4): [APGD, APGD_T, FAB_T, SQUARE],
    ("standard", "linf", 3): [APGD, APGD_MARGIN, FAB_T, SQUARE],
    ("standard", "linf", 2): [APGD, APGD_MARGIN, FAB, SQUARE],
    ("plus", "linf", 10): PLUS,
    ("plus", "l2", 10): PLUS,
    ("plus", "l1", 10): PLUS,
    ("plus", "linf", 3): [*PLUS[:4], APGD_MARGIN, FAB_T],
    ("plus", "linf", 2): [PLUS[0], APGD_MARGIN, PLUS[2], SQUARE, FAB],
}


def with_defaults(spec):
    parameters = inspect.signature(ATTACKS[spec["attack"]]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters} | spec


@pytest.mark.parametrize(("version", "norm", "num_classes"), VERSIONS, ids=str)
def test_a_version_is_these_attacks_with_these_numbers(version, norm, num_classes):
    specs = components(version, num_classes, eps="4/255", norm=norm)

    wanted = [{**spec, "eps": "4/255", "norm": norm} for spec in VERSIONS[version, norm, num_classes]]
    found = [with_defaults(spec) for spec in specs]
    assert [{key: full[key] for key in spec} for full, spec in zip(found, wanted, strict=True)] == wanted


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_the_numbers_of_a_version_are_those_of_the_library(version, norm):
    library = pyautoattack.AutoAttack(Net(10), eps=0.1, norm=NORMS[norm], version=version)
    restarts = {"restarts": library.apgd.n_restarts}
    expected = {
        "apgd-ce": {**APGD, **restarts, "num_steps": library.apgd.n_iter},
        "apgd-dlr": {**APGD_DLR, **restarts, "num_steps": library.apgd.n_iter},
        "apgd-t": {
            **APGD_T,
            "num_steps": library.apgd_targeted.n_iter,
            "num_targets": library.apgd_targeted.n_target_classes,
        },
        "fab": {**FAB, "num_steps": library.fab.n_iter, "restarts": library.fab.n_restarts},
        "fab-t": {**FAB_T, "num_steps": library.fab.n_iter, "num_targets": library.fab.n_target_classes},
        "square": {"attack": "square", "num_queries": library.square.n_queries, "restarts": library.square.n_restarts},
    }

    assert [expected[name] for name in library.attacks_to_run] == VERSIONS[version, norm, 10]


@pytest.mark.parametrize("version", ["fast", "standard", "plus"])
@pytest.mark.parametrize("num_classes", [2, 3, 4, 6])
def test_every_version_runs_on_few_classes(version, num_classes):
    net, images, labels = make(num_classes, size=4)
    specs = components(version, num_classes, eps=0.02, norm="linf")
    names = {(spec["attack"], spec.get("loss")) for spec in specs}
    assert (("apgd_t", None) in names) == (num_classes >= 4)
    assert (("apgd", "margin") in names) == (num_classes < 4)
    assert len(specs) == len({str(spec) for spec in specs})
    for spec in specs:
        options = {key: value for key, value in spec.items() if key != "attack"}
        short = {"num_queries": 50} if spec["attack"] == "square" else {"num_steps": 5}
        adversarial = ATTACKS[spec["attack"]](net, images, labels, **options, **short)
        assert inside(images, adversarial, 0.02, "linf").all()


def test_what_the_library_cannot_do_is_refused():
    net, images, labels = make(size=2)
    with pytest.raises(ValueError, match="Square in l2 tiles images"):
        ATTACKS["square"](net, images[:, :, :8, :8], labels, eps=1.0, norm="l2")


def test_targets_of_fab_t_are_the_most_likely_wrong_classes(monkeypatch):
    net, images, labels = make(6)
    targets = []

    class Counting(pyautoattack.fab_pt.FABAttack_PT):
        def attack_single_run(self, *args, **kwargs):
            targets.append(self.targets)
            return super().attack_single_run(*args, **kwargs)

    monkeypatch.setattr(pyautoattack.fab_pt, "FABAttack_PT", Counting)
    fab_t(net, images, labels, eps=0.001, num_steps=1)
    fab_t(net, images, labels, eps=0.001, num_steps=1, num_targets=2)
    likely = net(images).argsort(1, descending=True)
    assert torch.equal(torch.stack(targets, dim=1), likely[:, [1, 2, 3, 4, 5, 1, 2]])


def make_few(rows):
    """A problem in which these images alone are classified correctly, and the sizes of the batches that come."""
    net, images, labels = make(6)
    wrong = (labels + 1) % 6
    wrong[rows] = labels[rows]
    sizes = []

    def noting(points):
        sizes.append(len(points))
        return net(points)

    return noting, images, wrong, sizes


@pytest.mark.parametrize(("name", "options"), [("fab", {"restarts": 4}), ("fab_t", {}), ("fab_t", {"restarts": 3})])
def test_runs_of_fab_go_side_by_side_where_the_batch_has_room(name, options):
    rows = [0, 1, 2, 4]
    classifier, images, labels, sizes = make_few(rows)
    options = {**options, "eps": 0.012, "num_steps": 10}
    together = ATTACKS[name](classifier, images, labels, **options)
    passes, largest = len(sizes), max(sizes[2:])

    # Alone, each image is a chain of runs.
    alone, chains = [], []
    for row in rows:
        sizes.clear()
        alone.append(ATTACKS[name](classifier, images[[row]], labels[[row]], seeds=torch.tensor([row]), **options))
        chains.append(len(sizes))
    assert torch.equal(together[rows], torch.cat(alone))
    assert (together != images).any()
    assert 4 < largest <= 12 and passes < 0.7 * max(chains)


def test_the_point_that_is_kept_is_of_the_earliest_run_that_fools_the_image():
    classifier, images, labels, sizes = make_few([1])
    options = {"eps": 0.03, "num_steps": 10}
    kept = fab_t(classifier, images, labels, **options)

    # The run to the second target fools the image in one step. That to the first goes on alone, and does in two.
    assert sizes[2:] == [5, 5, 5, 5, 1, 1]
    assert (kept[1] != images[1]).any()
    assert torch.equal(kept, fab_t(classifier, images, labels, num_targets=1, **options))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["apgd", "fab", "fab_t", "square"])
def test_every_restart_starts_elsewhere(name, norm):
    net, images, labels = make()
    options = {"num_queries": 3} if name == "square" else {"num_steps": 3}
    options |= {"num_targets": 1} if name == "fab_t" else {}

    def passes(restarts):
        points = []

        def noting(x):
            points.append(x.detach().clone())
            return net(x)

        ATTACKS[name](noting, images, labels, eps=1e-4, norm=norm, restarts=restarts, **options)
        return points

    # What one restart more adds is its run, which starts at the first point that is not the image.
    one, two, three = (passes(restarts) for restarts in (1, 2, 3))
    runs = [one, two[len(one) :], three[len(two) :]]
    starts = [next(x for x in run if not torch.equal(x, images)) for run in runs]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (starts[first] != starts[second]).flatten(1).any(1).all()


def test_the_windows_of_square_follow_its_seed_and_the_restart():
    net, _, _ = make()
    torch.manual_seed(1)
    images = torch.rand(12, 3, 64, 64)

    def small(x):
        return net(nn.functional.avg_pool2d(x, 4))

    with torch.no_grad():
        labels = small(images).argmax(1)

    def starts_and_first_windows(seed):
        """Of two runs: where they start, and which pixels their first query changes in any image."""
        points = []

        def noting(x):
            points.append(x.detach().clone())
            return small(x)

        ATTACKS["square"](noting, images, labels, eps=1e-4, num_queries=2, restarts=2, seed=seed)
        runs = [points[1 : 1 + len(points) // 2], points[1 + len(points) // 2 :]]
        return [run[0] for run in runs], [(run[1] != run[0]).flatten(0, 1).any(0) for run in runs]

    starts, windows = starts_and_first_windows(seed=0)
    other_starts, other_windows = starts_and_first_windows(seed=1)
    assert all(torch.equal(one, other) for one, other in zip(starts, other_starts, strict=True))
    assert len({str(window.nonzero().tolist()) for window in [*windows, *other_windows]}) == 4


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["apgd", "apgd_t", "fab", "fab_t", "square"])
def test_an_image_is_attacked_the_same_in_any_batch(name, norm):
    net, images, labels = make()
    options = {"num_queries": 200} if name == "square" else {"num_steps": 15}
    options |= {"restarts": 2} if name in ("apgd", "fab") else {}
    options |= {"eps": EPS[norm] * (3 if name == "square" else 1), "norm": norm}
    seeds = torch.arange(100, 100 + len(images))
    together = ATTACKS[name](net, images, labels, seeds=seeds, **options)
    order = [7, 2, 11, 0, 5]
    apart = torch.cat([ATTACKS[name](net, images[[i]], labels[[i]], seeds=seeds[[i]], **options) for i in order])
    few = ATTACKS[name](net, images[order], labels[order], seeds=seeds[order], **options)
    assert torch.equal(apart, together[order]) and torch.equal(few, together[order])
    assert not torch.equal(together, images)
    if name == "apgd":
        other = ATTACKS[name](net, images, labels, seeds=seeds + 1, **options)
        assert not torch.equal(other, together)


def test_nothing_is_left_behind():
    net, images, labels = make()
    net.train()

    def trace(frame, event, argument):
        return None

    state, before = torch.get_rng_state(), sys.gettrace()
    sys.settrace(trace)
    try:
        for name in ("apgd", "apgd_t", "fab", "fab_t", "square"):
            short = {"num_queries": 20} if name == "square" else {"num_steps": 3}
            ATTACKS[name](net, images, labels, eps=0.02, **short)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training and all(p.requires_grad and p.grad is None for p in net.parameters())
    assert pyautoattack.autopgd_base.torch is torch


def test_threads_attack_at_the_same_time_as_one_after_the_other():
    problems = [(*make(), torch.arange(12) + offset) for offset in (0, 100)]

    def attack(problem):
        net, images, labels, seeds = problem
        return apgd(net, images, labels, eps=EPS["linf"], num_steps=10, restarts=2, seeds=seeds)

    one_by_one = [attack(problem) for problem in problems]
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(attack, problems))
    assert not torch.equal(*one_by_one)
    assert all(torch.equal(one, other) for one, other in zip(one_by_one, at_once, strict=True))


def test_images_that_are_not_contiguous_are_attacked_the_same():
    net, images, labels = make()
    turned = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not turned.is_contiguous()
    for name in ("apgd", "fab_t", "square"):
        for norm in NORMS:
            options = {"num_queries": 20} if name == "square" else {"num_steps": 5}
            options |= {"eps": EPS[norm], "norm": norm}
            attacked = ATTACKS[name](net, turned, labels, **options)
            assert torch.equal(attacked, ATTACKS[name](net, images, labels, **options))


def test_misclassified_images_are_left_alone():
    net, images, labels = make()
    wrong = (labels + 1) % 12
    for name in ("apgd", "apgd_t", "fab_t", "square"):
        assert torch.equal(ATTACKS[name](net, images, wrong, eps=0.05), images)


def test_without_the_library_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    net, images, labels = make(size=2)
    with pytest.raises(ImportError, match=r"pip install.*hf_pmgaft\[eval\]"):
        fab_t(net, images, labels, eps=0.01)
