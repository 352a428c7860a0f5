"""PGD and FGSM against known answers."""

import pytest
import torch
from support.attacked import length, linear

from hf_pmgaft.attacks import ATTACKS, TRAINING_ATTACKS, normal_noise, pgd, sample_seeds
from hf_pmgaft.attacks.losses import LOSSES, cross_entropy, margin

F64 = torch.float64


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


def test_momentum_follows_the_summed_directions():
    # One pixel whose gradient turns round at 0.5: without momentum it stays near 0.5, with momentum it overshoots.
    images, labels = torch.full((1, 1, 1, 1), 0.4), None

    def peak(x):
        return -(x - 0.5).square().flatten(1).sum(1)

    options = dict(eps=0.3, num_steps=3, step_size=0.08, random_start=False, loss_fn=peak)
    plain = pgd(None, images, labels, **options).item()
    heavy = pgd(None, images, labels, momentum=2.0, **options).item()
    assert plain == pytest.approx(0.48) and heavy == pytest.approx(0.64)


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


def test_momentum_adds_directions_of_length_one_however_steep_the_loss():
    # Slightly up to 0.45 and steeply down behind it: what has gone up once, with momentum 2, goes on up.
    def kink(x):
        return torch.where(x < 0.45, 0.1 * x, -10 * x).flatten(1).sum(1)

    options = dict(eps=0.3, num_steps=3, step_size=0.08, random_start=False, loss_fn=kink)
    images = torch.full((1, 1, 1, 1), 0.4)
    assert pgd(None, images, None, momentum=2.0, **options).item() == pytest.approx(0.64)
    assert pgd(None, images, None, **options).item() == pytest.approx(0.48)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("num_steps", "step_size"), [(1, 0.02), (2, 0.025), (5, 0.01), (20, 0.0025)])
def test_a_step_is_two_and_a_half_radii_over_the_number_of_steps_and_a_single_one_the_radius(
    small, num_steps, step_size, norm
):
    net, images, labels = small
    options = {"eps": 0.02, "norm": norm, "num_steps": num_steps}
    expected = pgd(net, images, labels, step_size=step_size, **options)
    torch.testing.assert_close(pgd(net, images, labels, **options), expected, rtol=0, atol=1e-6)


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
        cosines = torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1))
        assert abs(cosines.mean()) < 0.05
        lengths = torch.stack([length(one, norm), length(other, norm)])
        assert abs(torch.corrcoef(lengths)[0, 1]) < 0.08
