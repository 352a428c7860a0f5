"""Attacks against known answers, and the contract's promises, over every attack that is listed."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from hf_pmgaft.attacks import (
    ATTACKS,
    TRAINING_ATTACKS,
    SharedPerturbation,
    frozen,
    make_attack,
    normal_noise,
    parse_radius,
    pgd,
    sample_seeds,
    uniform_noise,
)
from hf_pmgaft.attacks.pgd import LOSSES, cross_entropy, dlr, margin, targeted_dlr

F64 = torch.float64


def linear(weight, bias):
    return lambda images: images.flatten(1) @ weight.to(images.dtype).T + bias.to(images.dtype)


def length(delta, norm):
    flat = delta.flatten(1).double()
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


@pytest.fixture
def small():
    """A small convolutional net with dropout and batch norm, and images."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(512, 5)
    )
    for parameter in net.parameters():
        parameter.data.mul_(2)
    return net.eval(), torch.rand(8, 3, 8, 8), torch.arange(8) % 5


# ---- Known answers ----


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("model", ["two_classes", "five_classes"])
def test_pgd_ends_where_the_reference_ends(golden, model, norm):
    case = {k: torch.tensor(v, dtype=F64) for k, v in golden["pgd"][model].items() if not isinstance(v, dict)}
    steps = {"linf": (4 / 255, 7, 1 / 255), "l2": (0.25, 10, 0.25 / 4)}[norm]
    images = pgd(
        linear(case["weight"], case["bias"]),
        case["images"],
        case["labels"].long(),
        **dict(zip(("eps", "num_steps", "step_size"), steps, strict=True)),
        norm=norm,
        random_start=False,
    )
    expected = torch.tensor(golden["pgd"][model][norm]["adversarial_images"], dtype=F64)
    assert (images - expected).abs().max() < 1e-9


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (3, 3, 4, 4), (8, 2, 9, 3)])
def test_pgd_reaches_the_closed_form_optimum_of_a_linear_model(shape, norm):
    torch.manual_seed(1)
    images = 0.4 + 0.2 * torch.rand(shape)  # far from 0 and 1, so that the ball alone binds
    weight, labels = torch.randn(2, images[0].numel()), torch.arange(shape[0]) % 2
    classifier = linear(weight, torch.zeros(2))
    eps = {"linf": 0.05, "l2": 0.2}[norm]
    adversarial = pgd(classifier, images, labels, eps=eps, norm=norm, num_steps=20, step_size=eps / 2, loss="margin")

    difference = weight[1 - labels] - weight[labels]
    best = eps * (difference.abs().sum(1) if norm == "linf" else difference.norm(dim=1))
    gained = margin(classifier(adversarial), labels) - margin(classifier(images), labels)
    torch.testing.assert_close(gained, best, rtol=0.01, atol=0)
    assert (gained <= best * (1 + 1e-4)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_more_steps_and_more_restarts_are_never_weaker(small, norm):
    net, images, labels = small
    options = {"eps": {"linf": 0.03, "l2": 0.5}[norm], "norm": norm}

    def strength(**more):
        return cross_entropy(net(pgd(net, images, labels, **options, **more)), labels)

    few, many = strength(num_steps=2), strength(num_steps=40)
    assert many.mean() > few.mean()
    values = [strength(num_steps=3, restarts=restarts) for restarts in (1, 2, 5, 10)]
    for weaker, stronger in zip(values, values[1:], strict=False):
        assert (stronger >= weaker - 1e-6).all()
    assert (values[-1] > values[0] + 1e-6).any()  # restarts do start elsewhere


def test_saturated_logits_fool_cross_entropy_and_not_the_margin(small):
    net, images, _ = small

    def saturated(x):
        return 1000 * net(x)

    labels = net(images).argmax(1)
    confident = margin(saturated(images), labels) < -200  # where float32 has no gradient of the cross-entropy left
    assert confident.sum() >= 4
    images, labels = images[confident], labels[confident]

    def survivors(loss):
        adversarial = pgd(saturated, images, labels, eps=0.1, num_steps=20, loss=loss, random_start=False)
        return (net(adversarial).argmax(1) == labels).float().mean()

    assert survivors("ce") == 1
    assert survivors("margin") == 0
    by_cw = ATTACKS["cw"](saturated, images, labels, eps=0.1, norm="linf", num_steps=20)
    assert (net(by_cw).argmax(1) != labels).all()  # which is on the margin too


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_stops_early_at_its_iterate_and_leaves_the_batch(small, norm, momentum):
    net, images, _ = small
    labels = net(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5  # misclassified from the start
    num_steps, eps = 8, {"linf": 0.02, "l2": 0.3}[norm]
    options = {"eps": eps, "norm": norm, "step_size": eps / 4, "momentum": momentum}
    iterates = [pgd(net, images, labels, num_steps=steps, **options) for steps in range(1, num_steps + 1)]
    start = pgd(net, images, labels, num_steps=1, **{**options, "step_size": 0.0})
    iterates = torch.stack([start, *iterates])
    wrong = torch.stack([net(points).argmax(1) != labels for points in iterates])[:-1]  # those that are walked on from
    seeds = torch.arange(8)
    for tau in (0, 1, 3):
        # The first iterate that is misclassified after tau others were; the last one where there is none.
        stops = (wrong & (wrong.cumsum(0) == tau + 1)).int()
        ends = torch.where(stops.any(0), stops.argmax(0), num_steps)
        assert len(ends.unique()) > 2 and (ends == num_steps).any() and (ends < num_steps).any()
        rows = []

        def counting(points, rows=rows):
            rows.append(len(points))
            return net(points)

        adversarial = pgd(counting, images, labels, num_steps=num_steps, tau=tau, **options)
        torch.testing.assert_close(adversarial, iterates[ends, seeds], rtol=0, atol=1e-6)
        # An image that stops at iterate t is looked at t + 1 times.
        assert sum(rows) == (ends + 1).clamp_max(num_steps).sum() < 8 * num_steps
        one = pgd(net, images[3:4], labels[3:4], num_steps=num_steps, tau=tau, seeds=seeds[3:4], **options)
        torch.testing.assert_close(one, adversarial[3:4], rtol=0, atol=1e-6)


def test_an_early_stop_that_no_image_reaches_is_the_plain_walk(small):
    net, images, labels = small
    options = {"eps": 0.1, "num_steps": 5}
    assert torch.equal(pgd(net, images, labels, tau=5, **options), pgd(net, images, labels, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": True}, "tau=True"),
        ({"tau": 0.5}, "tau=0.5"),
        ({"tau": 0, "any_iterate": True}, "tau with any_iterate"),
        ({"tau": 0, "targeted": True}, "tau with a target"),
        ({"tau": 0, "restarts": 2}, "tau with a target, loss_fn or restarts"),
        ({"tau": 0, "loss_fn": lambda x: x.sum((1, 2, 3))}, "tau with a target, loss_fn"),
    ],
    ids=str,
)
def test_an_early_stop_where_it_cannot_work_is_refused(small, options, message):
    net, images, labels = small
    with pytest.raises(ValueError, match=message):
        pgd(net, images, labels, eps=0.1, **options)


def test_targets_are_reached(small):
    net, images, _ = small
    labels = net(images).argmax(1)
    targets = (labels + 1) % 5
    for loss in sorted(LOSSES):
        logits = net(pgd(net, images, targets, eps=0.3, num_steps=30, loss=loss, targeted=True))
        if loss == "dlr":  # compares target and label alone, so a third class may come out on top
            assert (logits[range(8), targets] > logits[range(8), labels]).all()
        else:
            assert (logits.argmax(1) == targets).all(), loss


def test_losses_are_the_published_ones():
    logits, labels = torch.tensor([[3.0, 1.0, 0.5, -1.0], [0.0, 2.0, 5.0, 1.0]]), torch.tensor([0, 1])
    torch.testing.assert_close(margin(logits, labels), torch.tensor([-2.0, 3.0]))
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-2.0 / 2.5, 3.0 / 4.0]))
    got = targeted_dlr(logits, torch.tensor([1, 0]), labels)
    torch.testing.assert_close(got, torch.tensor([-2.0 / (3 - (0.5 - 1) / 2), -2.0 / (5 - (1 + 0) / 2)]))
    expected = -torch.log_softmax(logits, 1)[[0, 1], labels]
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


def test_dlr_needs_three_classes_and_targeted_four():
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    for classes, targeted in ((2, False), (3, True)):
        classifier = linear(torch.randn(classes, 4), torch.zeros(classes))
        with pytest.raises(ValueError, match=f"there are {classes} classes.*margin"):
            pgd(classifier, images, labels, eps=0.1, loss="dlr", targeted=targeted)


def test_momentum_follows_the_summed_directions():
    # One pixel whose gradient turns round at 0.5: without momentum it stays near 0.5, with momentum it overshoots.
    images, labels = torch.full((1, 1, 1, 1), 0.4), None

    def peak(x):
        return -(x - 0.5).square().flatten(1).sum(1)

    options = dict(eps=0.3, num_steps=3, step_size=0.08, random_start=False, loss_fn=peak)
    plain = pgd(None, images, labels, **options).item()
    heavy = pgd(None, images, labels, momentum=2.0, **options).item()
    assert plain == pytest.approx(0.48) and heavy == pytest.approx(0.64)


def test_momentum_adds_directions_of_length_one_however_steep_the_loss():
    # Slightly up to 0.45 and steeply down behind it: what has gone up once, with momentum 2, goes on up.
    def kink(x):
        return torch.where(x < 0.45, 0.1 * x, -10 * x).flatten(1).sum(1)

    options = dict(eps=0.3, num_steps=3, step_size=0.08, random_start=False, loss_fn=kink)
    images = torch.full((1, 1, 1, 1), 0.4)
    assert pgd(None, images, None, momentum=2.0, **options).item() == pytest.approx(0.64)
    assert pgd(None, images, None, **options).item() == pytest.approx(0.48)


def test_loss_fn_replaces_the_named_loss(small):
    net, images, labels = small
    by_function = pgd(None, images, None, eps=0.02, loss_fn=lambda x: cross_entropy(net(x), labels))
    assert torch.equal(by_function, pgd(net, images, labels, eps=0.02))
    away = pgd(None, images, None, eps=0.02, random_start=False, loss_fn=lambda x: x.flatten(1).sum(1))
    torch.testing.assert_close(away, (images + 0.02).clamp(0, 1))


def test_fgsm_is_one_step_of_length_eps(small):
    net, images, labels = small
    one = TRAINING_ATTACKS["fgsm"](net, images, labels, eps="8/255")
    x = images.clone().requires_grad_()
    gradient = torch.autograd.grad(cross_entropy(net(x), labels).sum(), x)[0]
    torch.testing.assert_close(one, (images + 8 / 255 * gradient.sign()).clamp(0, 1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("num_steps", "step_size"), [(1, 0.02), (2, 0.025), (5, 0.01), (20, 0.0025)])
def test_a_step_is_two_and_a_half_radii_over_the_number_of_steps_and_a_single_one_the_radius(
    small, num_steps, step_size, norm
):
    net, images, labels = small
    options = {"eps": 0.02, "norm": norm, "num_steps": num_steps}
    expected = pgd(net, images, labels, step_size=step_size, **options)
    torch.testing.assert_close(pgd(net, images, labels, **options), expected, rtol=0, atol=1e-6)


def test_l2_stays_where_there_is_no_gradient():
    images = torch.rand(2, 1, 3, 3)
    weight = torch.zeros(2, 9)
    adversarial = pgd(
        linear(weight, torch.zeros(2)), images, torch.tensor([0, 1]), eps=1.0, norm="l2", random_start=False
    )
    assert torch.equal(adversarial, images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_normal_start_has_its_deviation_and_stays_in_ball_and_box(norm):
    images, seeds = torch.full((50, 3, 8, 8), 0.5), sample_seeds(0, 0, torch.arange(50))
    still = dict(norm=norm, num_steps=1, loss_fn=lambda x: 0 * x.flatten(1).sum(1), seeds=seeds)
    delta = pgd(None, images, None, eps=0.4, start_std=0.001, **still) - images
    assert abs(delta.mean()) < 1e-4 and delta.std().item() == pytest.approx(0.001, rel=0.03)
    torch.testing.assert_close(delta, 0.001 * normal_noise(seeds, (3, 8, 8)), rtol=0, atol=1e-7)
    torch.testing.assert_close(
        pgd(None, images[7:9], None, eps=0.4, start_std=0.001, **still | {"seeds": seeds[7:9]}),
        (images + delta)[7:9],
        rtol=0,
        atol=0,
    )

    black = torch.zeros_like(images)
    cut = pgd(None, black, None, eps=0.002, start_std=0.1, **still)
    assert cut.min() == 0 and (length(cut, norm) <= 0.002 * (1 + 1e-5)).all() and (length(cut, norm) > 0).all()
    assert torch.equal(pgd(None, images, None, eps=0.4, start_std=0.1, random_start=False, **still), images)


def starts(norm, shape, count, restarts=1, eps=0.4):
    """Where walks of no length begin, seen from their images `[restarts,count,*shape]` in units of the radius."""
    images, points = torch.full((count, *shape), 0.5), []

    def noting(x):
        points.append(x.detach().clone())
        return 0 * x.flatten(1).sum(1)

    seeds = sample_seeds(0, 0, torch.arange(count))
    options = {"eps": eps, "norm": norm, "num_steps": 1, "step_size": 0.0, "restarts": restarts, "seeds": seeds}
    pgd(None, images, None, loss_fn=noting, **options)
    runs = len(points) // restarts
    return (torch.stack(points[::runs]) - images) / eps


def is_uniform(values):
    """Whether numbers are uniform in [0,1], by Kolmogorov and Smirnov."""
    ordered = values.double().flatten().sort().values
    grid = torch.arange(1, len(ordered) + 1) / len(ordered)
    return ((ordered - grid).abs().max() < 2 / len(ordered) ** 0.5).item()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (3, 1, 2)])
def test_a_random_start_in_l2_is_uniform_in_the_ball(shape):
    (delta,) = starts("l2", shape, 8000)

    flat, d = delta.flatten(1), delta[0].numel()
    radius = flat.norm(dim=1)
    assert radius.max() <= 1 + 1e-5
    assert is_uniform(radius**d)  # the share of the volume that is nearer
    # No direction is special: means 0, second moments of the ball, 1 / (d + 2) each, and any angle.
    assert flat.mean(0).abs().max() < 0.05
    moments = flat.T @ flat / len(flat)
    torch.testing.assert_close(moments, torch.eye(d) / (d + 2), rtol=0, atol=0.03)
    if d > 1:
        turns = torch.atan2(flat[:, 0], flat[:, 1]) / (2 * torch.pi)
        assert is_uniform(turns + 0.5) and is_uniform(4 * turns % 1)  # nor is one of a quarter turn


def test_a_random_start_in_linf_is_uniform_in_the_ball():
    (delta,) = starts("linf", (3, 1, 2), 2000)

    assert all(is_uniform((pixel + 1) / 2) for pixel in delta.flatten(1).T)
    moments = delta.flatten(1).T @ delta.flatten(1) / len(delta)
    torch.testing.assert_close(moments, torch.eye(6) / 3, rtol=0, atol=0.03)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_starts_of_restarts_are_independent(norm):
    first, second, third = starts(norm, (3, 1, 2), 2000, restarts=3)

    for one, other in ((first, second), (first, third), (second, third)):
        cosines = nn.functional.cosine_similarity(one.flatten(1), other.flatten(1))
        assert abs(cosines.mean()) < 0.05
        lengths = torch.stack([length(one, norm), length(other, norm)])
        assert abs(torch.corrcoef(lengths)[0, 1]) < 0.08


# ---- The contract, for every attack of training ----


EPS = {"linf": 8 / 255, "l2": 0.5}
# A shared perturbation has one norm, and is that of a whole batch.
PAIRS = [(name, norm) for name in sorted(TRAINING_ATTACKS) for norm in EPS if (name, norm) != ("shared", "l2")]


def attack(name, norm, net, images, labels, **options):
    options = {"eps": EPS[norm], "norm": norm, "random_start": True, **options}
    return make_attack(TRAINING_ATTACKS[name])(net, images, labels, **options)


@pytest.mark.parametrize(("name", "norm"), [pair for pair in PAIRS if pair[0] != "shared"])
def test_an_image_s_perturbation_depends_on_its_seed_alone(small, name, norm):
    net, images, labels = small
    net, images = net.double(), images.double()
    seeds = torch.tensor([5, -3, 2**40, 7, 11, 0, 1, 2])
    whole = attack(name, norm, net, images, labels, seeds=seeds)
    for part in ([4], [6, 2, 0], [7, 6, 5, 4, 3, 2, 1, 0]):
        alone = attack(name, norm, net, images[part], labels[part], seeds=seeds[part])
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-12)
    other = attack(name, norm, net, images, labels, seeds=seeds + 1)
    assert (length(other - whole, "linf") > 0).all()


@pytest.mark.parametrize(("name", "norm"), PAIRS)
class TestContract:
    def test_images_stay_in_ball_and_box_and_fool_more(self, small, name, norm):
        net, images, labels = small
        images = images.clone()
        images[0], images[1] = 0.0, 1.0
        options = {"step_size": 100.0} if name == "shared" else {}  # of raw gradients, which are small here
        adversarial = attack(name, norm, net, images, labels, **options)
        assert adversarial.min() >= 0 and adversarial.max() <= 1 and not adversarial.requires_grad
        delta = length(adversarial - images, norm)
        assert (delta <= EPS[norm] * (1 + 1e-5)).all() and (delta > 0).all()
        assert cross_entropy(net(adversarial), labels).mean() > cross_entropy(net(images), labels).mean()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_type_is_kept_and_the_ball_holds_in_it(self, small, name, norm, dtype):
        net, images, labels = small
        images = images.to(dtype)
        adversarial = attack(name, norm, lambda x: net(x.float()), images, labels)
        assert adversarial.dtype == dtype
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert (length(adversarial.double() - images.double(), norm) <= EPS[norm] * (1 + 1e-5)).all()

    def test_nothing_is_left_behind(self, small, name, norm):
        net, images, labels = small
        net.train()
        net[1].eval()
        net[0].weight.requires_grad_(False)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        with torch.no_grad():
            attack(name, norm, net, images, labels)
        assert [part.training for part in net] == [True, False, True, True, True, True]
        assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]
        assert all(parameter.grad is None for parameter in net.parameters())
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]
        assert not images.requires_grad

    def test_no_radius_no_change(self, small, name, norm):
        net, images, labels = small
        assert torch.equal(attack(name, norm, net, images, labels, eps=0), images)


def test_flags_come_back_after_an_error(small):
    net, images, labels = small
    net.train()
    with pytest.raises(RuntimeError, match="boom"), frozen(net):
        assert not net.training and not any(p.requires_grad for p in net.parameters())
        raise RuntimeError("boom")
    assert net.training and all(p.requires_grad for p in net.parameters())


# ---- Noise ----


def test_noise_is_uniform_normal_and_independent():
    seeds = sample_seeds(0, 0, torch.arange(2000))
    u, n = uniform_noise(seeds, (3, 8, 8)), normal_noise(seeds, (192,))
    assert u.min() >= 0 and u.max() < 1
    ordered = u.flatten().sort().values
    grid = torch.arange(1, len(ordered) + 1) / len(ordered)
    assert (ordered - grid).abs().max() < 2 / len(ordered) ** 0.5  # Kolmogorov and Smirnov
    assert abs(n.mean()) < 0.01 and abs(n.std() - 1) < 0.01
    z = (u - 0.5) * 12**0.5
    others = (uniform_noise(seeds, (3, 8, 8), stream=1) - 0.5) * 12**0.5
    for a, b in ((z[1:], z[:-1]), (z[..., 1:], z[..., :-1]), (z[:, :, 1:], z[:, :, :-1]), (z, others)):
        assert abs((a * b).mean()) < 0.01
    assert abs(z.mean(dim=(1, 2, 3)).std() * 192**0.5 - 1) < 0.06


def test_seeds_differ_between_runs_steps_and_samples():
    ids = torch.arange(500)
    seeds = torch.cat([sample_seeds(seed, step, ids) for seed in range(5) for step in range(20)])
    assert len(set(seeds.tolist())) == len(seeds)
    assert torch.equal(sample_seeds(3, 4, ids[[9, 2]]), sample_seeds(3, 4, ids)[[9, 2]])


# ---- What cannot be ----


@pytest.mark.parametrize(
    ("radius", "value"), [("4/255", 4 / 255), (0.5, 0.5), ("0.01", 0.01), ("1e-2", 0.01), (0, 0.0)]
)
def test_radii_are_fractions_or_numbers(radius, value):
    assert parse_radius(radius) == pytest.approx(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 4}, "4/255"),
        ({"eps": "8"}, "8/255"),
        ({"eps": -0.1}, "0 or more"),
        ({"eps": "four"}, "no number"),
        ({"eps": "1/0"}, "no number"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"norm": "l1"}, r"no norm 'l1'.*l2"),
        ({"start_std": -0.001}, "0 or more"),
        ({"loss": "hinge"}, r"no loss 'hinge'.*margin"),
        ({"seeds": torch.arange(3)}, "one per image"),
    ],
)
def test_what_cannot_work_is_refused(small, options, message):
    net, images, labels = small
    with pytest.raises(ValueError, match=message):
        pgd(net, images, labels, **{"eps": 0.1, **options})


def test_images_of_the_wrong_kind_are_refused(small):
    net, images, labels = small
    for wrong in (images[0], (images * 255).byte()):
        with pytest.raises(ValueError, match="floating point"):
            pgd(net, wrong, labels, eps=0.1)
    with pytest.raises(ValueError, match="no labels or no classifier"):
        pgd(net, images, None, eps=0.1)


# ---- One perturbation for all images ----


def shared_problem():
    """A linear model of normalised pixels, whose mean gradient is the same for every perturbation inside the ball."""
    torch.manual_seed(0)
    weight, images = torch.randn(2, 12, dtype=torch.float64), 0.5 + 0.1 * torch.rand(4, 3, 2, 2, dtype=torch.float64)

    def classifier(x):
        return ((x - 0.5) / 0.25).flatten(1) @ weight.T

    classifier.std = torch.full((1, 3, 1, 1), 0.25, dtype=torch.float64)
    return classifier, images, torch.tensor([0, 1, 0, 0]), weight


def test_a_shared_perturbation_climbs_the_mean_raw_gradient_in_normalised_space():
    classifier, images, labels, weight = shared_problem()
    attack = SharedPerturbation()
    options = {"eps": 0.1, "step_size": 0.5, "random_start": False, "loss": "margin"}
    adversarial = attack(classifier, images, labels, **options)
    margins = torch.stack([weight[1 - label] - weight[label] for label in labels.tolist()])
    wanted = (0.5 * margins.mean(0)).clamp(-0.1, 0.1).view(1, 3, 2, 2)
    torch.testing.assert_close(attack.delta, wanted.to(attack.delta.dtype))
    torch.testing.assert_close(adversarial, images + 0.25 * wanted, rtol=1e-6, atol=1e-6)


def test_a_shared_perturbation_is_carried_over_and_begins_anew_with_an_epoch():
    classifier, images, labels, _ = shared_problem()
    attack, options = SharedPerturbation(), {"eps": 0.2, "step_size": 0.01}
    attack.begin(0)
    attack(classifier, images, labels, **options)
    first = attack.delta.clone()
    attack.begin(0)
    attack(classifier, images, labels, **options)
    second = attack.delta.clone()
    assert not torch.equal(first, second)

    resumed = SharedPerturbation()
    resumed.load({name: value.clone() for name, value in {"delta": first, "epoch": torch.tensor(0)}.items()})
    resumed.begin(0)
    resumed(classifier, images, labels, **options)
    assert torch.equal(resumed.delta, second)

    attack.begin(1)
    assert attack.delta is None
    again = SharedPerturbation()
    again.begin(0)
    again(classifier, images, labels, **options)
    assert torch.equal(again.delta, first)


def test_a_shared_perturbation_stays_in_its_ball_and_refuses_other_norms():
    classifier, images, labels, _ = shared_problem()
    adversarial = SharedPerturbation()(classifier, images, labels, eps=0.1, step_size=100.0, num_steps=3)
    assert (
        (adversarial - images).abs().max() <= 0.25 * 0.1 + 1e-7 and adversarial.min() >= 0 and adversarial.max() <= 1
    )
    with pytest.raises(ValueError, match="no norm of a shared perturbation 'l2'"):
        SharedPerturbation()(classifier, images, labels, eps=0.1, norm="l2")
