"""Attacks on classifiers that draw at random: mean gradients, walks to their ends, and a choice on fresh draws."""

import pytest
import torch
from support.defended import GOLDEN, double, toy

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks import correct, pgd, pgd_walk
from hf_pmgaft.attacks.expected import (
    CHOICE_DRAWS,
    attack_expected,
    attack_to_the_end,
    expected_gradient,
    walk_to_the_ends,
)
from hf_pmgaft.attacks.losses import margin
from hf_pmgaft.attacks.passes import most_passes
from hf_pmgaft.noise import draw_seeds, normal_noise

WALKS = [
    "apgd,eps=8/255,num_steps=12,restarts=2",
    "apgd,eps=4,norm=l1,num_steps=9",
    "apgd_t,eps=8/255,num_steps=12,num_targets=3",
    "pgd,eps=8/255,num_steps=5,restarts=2",
    "pgd,eps=0.5,norm=l2,num_steps=5,momentum=0.9",
    "fgsm,eps=8/255",
    "cw,eps=8/255,norm=linf,num_steps=5",
]
OTHERS = [
    "cw,eps=0.5,num_steps=5,search_steps=2",
    "patch,size=4,num_steps=5,places=2",
    "typographic,height=0.8,words=2,places=2",
    "fab,eps=8/255,num_steps=3",
    "fab_t,eps=8/255,num_steps=3",
    "square,eps=40/255,num_queries=40",
]
ALL = [*WALKS, *OTHERS]

NAMES = ["a", "b", "c", "d", "e"]
SEEDS = torch.tensor([5, -3, 2**40, 7, 11, 0])
SHAPE = (3, 16, 16)


class Noisy:
    """Linear logits of images with normal noise. It keeps the seeds that it was asked for, by image."""

    def __init__(self, std: float = 0.1):
        self.weights = torch.randn(768, len(NAMES), generator=torch.Generator().manual_seed(0)) / 4
        self.std = std
        self.asked: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.gradients = 0

    def __call__(self, images, seeds):
        self.asked.append((images.detach().clone(), seeds.clone()))
        self.gradients += images.requires_grad
        return (images + self.std * normal_noise(seeds, images.shape[1:])).flatten(1) @ self.weights


@pytest.fixture
def images():
    return torch.rand(len(SEEDS), *SHAPE, generator=torch.Generator().manual_seed(1)) / 2 + 0.25


def labels_of(classifier, images):
    return (images.flatten(1) @ classifier.weights).argmax(1)


def needs_library(text) -> bool:
    return text.startswith(("fab", "square")) or "norm=l1" in text


def run(text, classifier, images, seeds=SEEDS, rows=slice(None)):
    if needs_library(text):
        pytest.importorskip("pyautoattack")
    spec = AttackSpec.parse(text)
    labels = labels_of(classifier, images)
    return attack_expected(spec, classifier, images[rows], labels[rows], seeds[rows], class_names=NAMES)


def test_the_gradient_is_the_golden_mean_over_draws():
    golden = GOLDEN["smoothing"]["attack"]
    bare, images, _ = toy()
    noises = iter(golden["unit_noise"])

    def classifier(points, seeds):
        return bare(points + golden["sigma"] * double(next(noises)))

    one = torch.tensor([0])
    walk = pgd_walk(eps="4/255", random_start=False)
    state = walk.begin(images[:1], torch.tensor([golden["label"]]), one, one, None)
    loss, gradient = expected_gradient(walk, state, classifier, [one] * len(golden["unit_noise"]))
    assert loss.item() == pytest.approx(golden["eot_loss"], rel=1e-9)
    torch.testing.assert_close(gradient, double(golden["gradient_eot"]), rtol=1e-8, atol=0)


@pytest.mark.parametrize("text", ALL)
def test_what_comes_back_is_what_the_threat_allows(text, images):
    classifier, random = Noisy(), torch.get_rng_state()
    adversarial = run(f"{text},eot=2", classifier, images)
    assert adversarial.dtype == images.dtype and not adversarial.requires_grad
    assert AttackSpec.parse(text).allows(images, adversarial).all() and not torch.equal(adversarial, images)
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("text", ALL)
def test_it_depends_on_the_image_and_its_seed_alone(text, images):
    whole = run(f"{text},eot=2", Noisy(), images)
    part = [5, 2, 0]
    torch.testing.assert_close(run(f"{text},eot=2", Noisy(), images, rows=part), whole[part], rtol=0, atol=1e-6)
    others = run(f"{text},eot=2", Noisy(), images, seeds=SEEDS + 1)
    assert not torch.equal(others, whole)


@pytest.mark.parametrize("text", ALL)
def test_no_draw_of_an_attack_is_made_twice_and_none_is_one_of_a_verdict(text, images):
    classifier = Noisy()
    run(f"{text},eot=3", classifier, images[:1], SEEDS[:1])
    asked = [seeds[0].item() for _, seeds in classifier.asked]
    known = {
        purpose: [draw_seeds(SEEDS[:1], purpose, i).item() for i in range(500)] for purpose in ("attack", "choice")
    }
    of_attack = [seed for seed in asked if seed not in known["choice"]]
    assert of_attack == known["attack"][: len(of_attack)] and len(of_attack) % 3 == 0
    # Points are compared on draws that are the same for all of them.
    of_choice = [seed for seed in asked if seed in known["choice"]]
    assert of_choice == known["choice"][:CHOICE_DRAWS] * (len(of_choice) // CHOICE_DRAWS)


@pytest.mark.parametrize("text", WALKS)
def test_walks_go_to_their_ends_and_take_as_many_passes_as_they_are_said_to(text, images):
    if needs_library(text):
        pytest.importorskip("pyautoattack")
    classifier = Noisy(std=0)
    classifier.weights[:, 0] += 10  # all are of one class, and wrong from the start
    spec = AttackSpec.parse(f"{text},eot=3")
    attack_expected(spec, classifier, images, torch.ones(len(images), dtype=torch.long), SEEDS, class_names=NAMES)
    most = most_passes(spec, 5)
    assert classifier.gradients == most.backward
    assert 0 <= most.forward - len(classifier.asked) <= 3 * 10


@pytest.mark.parametrize("eot", [None, 3])
def test_without_noise_pgd_comes_to_its_last_iterate(images, eot):
    classifier = Noisy(std=0)
    labels = labels_of(classifier, images)
    options = {"eps": "8/255", "num_steps": 5}
    plain = pgd(lambda points: points.flatten(1) @ classifier.weights, images, labels, seeds=SEEDS, **options)
    spec = AttackSpec.of({"attack": "pgd", **options})
    if eot is None:
        bare = lambda points: points.flatten(1) @ classifier.weights  # noqa: E731
        adversarial = attack_to_the_end(spec, bare, images, labels, SEEDS, class_names=NAMES)
    else:
        adversarial = attack_expected(spec.by("through", eot), classifier, images, labels, SEEDS, class_names=NAMES)
    torch.testing.assert_close(adversarial, plain, rtol=0, atol=1e-6)


def test_apgd_to_its_end_goes_further_than_to_the_first_wrong_point(images):
    classifier = Noisy(std=0)
    labels = labels_of(classifier, images)

    def bare(points):
        return points.flatten(1) @ classifier.weights

    spec = AttackSpec.parse("apgd,eps=8/255,num_steps=12")
    first, end = (
        margin(bare(points), labels)
        for points in (
            spec.run(bare, images, labels, SEEDS),
            attack_to_the_end(spec, bare, images, labels, SEEDS, class_names=NAMES),
        )
    )
    fooled = first > 0
    assert (end >= first - 1e-4).all() and (end > first + 0.1)[fooled].any()
    assert (end[~fooled] > first[~fooled] + 1).all()  # those come back as they were


class Candidates:
    """Walks of one step each, to images of one grey; the first one keeps a point of another grey as its best."""

    num_walks = 2
    ranks_classes = False

    def begin(self, images, labels, seeds, numbers, ranking):
        grey = torch.where(numbers == 0, 0.2, 0.4).view(-1, 1, 1, 1).expand_as(images)
        best = torch.where(numbers == 0, 0.6, 0.4).view(-1, 1, 1, 1).expand_as(images)
        return {"images": images, "labels": labels, "points": grey.clone(), "best_points": best.clone()}

    def loss(self, state, logits):
        return logits[:, 1]

    def advance(self, state, loss, gradient):
        return torch.ones_like(loss, dtype=torch.bool)


def greys_to_choose_from(margins: dict[float, float], luck: float, eps: float = 0.5) -> float:
    """The grey that is kept where each has a margin, and 0.2 a higher one on all draws of the attack."""
    image, label, seed = torch.full((1, 3, 4, 4), 0.5), torch.tensor([0]), torch.tensor([3])
    of_attack = {draw_seeds(seed, "attack", i).item() for i in range(100)}

    def classifier(points, seeds):
        grey = round(points[0, 0, 0, 0].item(), 1)
        value = margins.get(grey, -9.0) + (luck if seeds.item() in of_attack and grey == 0.2 else 0.0)
        return torch.stack([0 * points.flatten(1).sum(1), points.flatten(1).sum(1) * 0 + value], dim=1)

    kept = walk_to_the_ends(
        Candidates(), classifier, image, label, seed, eps=eps, norm="linf", draws=2, choices=CHOICE_DRAWS
    )
    assert len(kept.unique()) == 1
    return round(kept[0, 0, 0, 0].item(), 1)


def test_the_point_that_is_kept_has_the_highest_mean_margin_on_draws_that_no_attack_saw():
    assert greys_to_choose_from({0.2: -1.0, 0.4: -2.0, 0.6: -3.0}, luck=0) == 0.2
    assert greys_to_choose_from({0.2: -2.0, 0.4: -1.0, 0.6: -3.0}, luck=0) == 0.4
    assert greys_to_choose_from({0.2: -2.0, 0.4: -3.0, 0.6: -1.0}, luck=0) == 0.6
    assert greys_to_choose_from({0.2: -2.0, 0.4: -1.0, 0.6: -3.0}, luck=100) == 0.4
    # Of equals the first
    assert greys_to_choose_from({0.2: -1.0, 0.4: -1.0, 0.6: -1.0}, luck=0) == 0.2


def test_a_best_point_outside_the_ball_is_none():
    assert greys_to_choose_from({0.2: -2.0, 0.4: -3.0, 0.6: -1.0}, luck=0, eps=0.05) == 0.2


def test_more_draws_go_further_where_the_noise_is_stronger_than_the_way(images):
    signs = 2 * (Noisy().weights[:, 0] > 0).float() - 1
    labels = torch.zeros(len(images), dtype=torch.long)

    def noisy(points, seeds):
        directions = signs + 4 * normal_noise(seeds, SHAPE).flatten(1)
        margins = (points.flatten(1) * directions).mean(1)
        return torch.stack([0 * margins, margins], dim=1)

    reached = []
    for eot in (1, 16):
        spec = AttackSpec.parse(f"pgd,eps=8/255,num_steps=5,eot={eot}")
        adversarial = attack_expected(spec, noisy, images, labels, SEEDS, class_names=NAMES[:2])
        reached.append(((adversarial - images).flatten(1) @ signs).mean().item() / (768 * 8 / 255))
    assert reached[0] < 0.5 and reached[1] > 0.7


def test_apgd_t_goes_to_the_classes_that_are_likely_on_average(images):
    """Also where the mean of the clean logits is wrong: no walk goes to the label itself."""
    classifier = Noisy(std=0.01)
    labels = (images.flatten(1) @ classifier.weights).argsort(1)[:, -2]  # the second best
    spec = AttackSpec.parse("apgd_t,eps=8/255,num_steps=10,num_targets=1,eot=2")
    adversarial = attack_expected(spec, classifier, images, labels, SEEDS, class_names=NAMES)
    logits = adversarial.flatten(1) @ classifier.weights
    assert not correct(logits, labels).any()
    clean = images.flatten(1) @ classifier.weights
    best = clean.argmax(1, keepdim=True)
    gained = (logits - clean).gather(1, best) - (logits - clean).gather(1, labels.view(-1, 1))
    assert (gained > 0).all()


def test_nan_is_no_verdict(images):
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        run("pgd,eps=8/255,num_steps=2", Noisy(std=torch.nan), images)
