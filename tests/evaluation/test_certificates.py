"""Certificates of images: closed forms of a linear model, attacks inside the radius, and what draws depend on."""

from statistics import NormalDist

import pytest
import torch
from support.defended import toy

from hf_pmgaft.attacks import pgd
from hf_pmgaft.defences import RandomNoise, Smoothing
from hf_pmgaft.defences.certificate import Certificate, certified_radius, largest_radius, lower_bound
from hf_pmgaft.evaluation import certified_accuracy, certify
from hf_pmgaft.evaluation.certificates import certify_embeds, noise_embeds
from hf_pmgaft.noise import draw_seeds
from hf_pmgaft.zero_shot import ZeroShotClassifier

SIGMA = 0.25
# Signed distances of images to the border between two classes
DISTANCES = [0.5, 0.3, 0.1, -0.1, -0.2, -0.4]
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


def linear() -> tuple[Smoothing, torch.Tensor]:
    """A model with a straight border, smoothed, and images at `DISTANCES` from it."""
    direction = torch.nn.functional.normalize(torch.randn(48, generator=torch.Generator().manual_seed(0)), dim=0)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        side = (pixels.flatten(1) - 0.5) @ direction
        return torch.stack([side, torch.ones_like(side)], dim=1)

    class_embeds = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    classifier = ZeroShotClassifier(encode, class_embeds, 30.0, image_mean=[0.0], image_std=[1.0])
    images = 0.5 + torch.tensor(DISTANCES).view(-1, 1) * direction
    return Smoothing(classifier, sigma=SIGMA), images.view(-1, 3, 4, 4)


@pytest.fixture(scope="module")
def certificates() -> list[Certificate]:
    defence, images = linear()
    return certify(defence, images, torch.arange(6), draws=20_000, batch_size=5000)


def test_radii_of_a_linear_model_are_those_of_its_closed_form(certificates):
    assert [certificate.prediction for certificate in certificates] == LABELS.tolist()
    for distance, (_, radius) in zip(map(abs, DISTANCES), certificates, strict=True):
        p = NormalDist().cdf(distance / SIGMA)
        four_deviations = 4 * (20_000 * p * (1 - p)) ** 0.5
        few, many = (int(20_000 * p + sign * four_deviations) for sign in (-1, 1))
        least, most = (certified_radius(lower_bound(count, 20_000, 0.001), SIGMA) for count in (few, many))
        assert 0.75 * distance < least <= radius <= most
        assert radius <= distance  # the true one


def test_no_image_of_a_linear_model_is_fooled_inside_its_radius(certificates):
    defence, images = linear()
    smoothed = defence.classifier  # noise on both sides of a straight border leaves it where it is

    def attacked(row: int, eps: float) -> int:
        options = {"eps": eps, "norm": "l2", "num_steps": 20, "random_start": False}
        return smoothed(pgd(smoothed, images[[row]], LABELS[[row]], **options)).argmax().item()

    for row, certificate in enumerate(certificates):
        assert attacked(row, certificate.radius) == LABELS[row]
        assert attacked(row, 1.02 * abs(DISTANCES[row])) != LABELS[row]


def test_no_image_of_a_curved_model_is_fooled_inside_its_radius():
    classifier, images, _ = toy()
    defence, rows = Smoothing(classifier, sigma=0.2), torch.arange(4)
    certificates = certify(defence, images, rows, draws=5000, batch_size=1000)
    classes = torch.tensor([certificate.prediction for certificate in certificates])
    radii = [certificate.radius for certificate in certificates]
    assert (classes >= 0).any()

    def logits_under(point: torch.Tensor, purpose: str, draws: int) -> torch.Tensor:
        seeds = draw_seeds(torch.zeros(draws).long(), purpose, torch.arange(draws))
        return defence(point.expand(draws, -1, -1, -1), seeds)

    def mean_log_p(point: torch.Tensor) -> torch.Tensor:
        return logits_under(point, "attack", 64).softmax(1).mean(0, keepdim=True).log()

    def majority(row: int, eps: float) -> int:
        point = pgd(mean_log_p, images[[row]], classes[[row]], eps=eps, norm="l2", num_steps=20)
        return logits_under(point, "verdict", 5000).argmax(1).bincount().argmax().item()

    kept = [row for row in range(4) if classes[row] >= 0]
    assert [majority(row, radii[row]) for row in kept] == classes[kept].tolist()
    assert [majority(row, 3 * radii[row]) for row in kept] != classes[kept].tolist()  # the attack finds what there is


def test_an_image_on_the_border_abstains():
    defence, images = linear()
    middle = torch.full_like(images[:1], 0.5)
    assert certify(defence, middle, torch.tensor([3])) == [(-1, 0.0)]


def test_no_radius_is_above_the_largest():
    defence, _ = linear()
    far = torch.where(linear()[1][:1] > 0.5, 1.0, 0.0)
    for alpha in (0.001, 0.05):
        ((prediction, radius),) = certify(defence, far, torch.tensor([0]), draws=200, alpha=alpha)
        assert prediction == 0 and radius == largest_radius(200, alpha, SIGMA)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_certificates_do_not_depend_on_batches_nor_on_other_images(batch_size):
    defence, images = linear()
    seeds = torch.arange(6)
    counts = {"selection": 20, "draws": 80}
    together = certify(defence, images, seeds, **counts)
    assert len(set(together)) > 3
    assert certify(defence, images, seeds, **counts, batch_size=batch_size) == together
    rows = [4, 1]
    assert certify(defence, images[rows], seeds[rows], **counts) == [together[row] for row in rows]


def test_all_passes_are_of_one_size_and_one_encoding_serves_every_list():
    defence, images = linear()
    sizes, encode = [], defence.classifier.encode_image
    defence.classifier = defence.classifier.by(lambda pixels: sizes.append(len(pixels)) or encode(pixels))
    image = images[0].requires_grad_()
    noise = noise_embeds(defence, image, torch.tensor(0), selection=10, draws=100, batch_size=32)
    assert not noise.selection.requires_grad  # of hundreds of passes nothing is kept
    assert [len(embeds) for embeds in noise] == [10, 100] and sizes == [32, 32, 32, 32]
    torch.testing.assert_close(torch.cat(noise).norm(dim=1), torch.ones(110))

    swapped = defence.classifier.replace(class_embeds=defence.classifier.class_embeds.flip(0))
    first, second = (certify_embeds(each, noise) for each in (defence, Smoothing(swapped, sigma=SIGMA)))
    assert first == certify(defence, images[:1], torch.tensor([0]), selection=10, draws=100, batch_size=32)[0]
    assert first.prediction == 0 and second == (1, first.radius)
    assert len(sizes) == 8  # those of the second call of an encoder


def test_draws_that_bound_are_others_than_those_that_pick_and_more_go_on_from_fewer():
    defence, images = linear()
    few, many = (
        noise_embeds(defence, images[0], torch.tensor(5), selection=draws, draws=draws, batch_size=10)
        for draws in (10, 50)
    )
    for some, more in zip(few, many, strict=True):
        assert torch.equal(some, more[:10])
    assert len(torch.cat(many).unique(dim=0)) == 100


def test_seeds_of_a_draw_each_are_those_of_one_draw_after_another():
    seeds, index = torch.tensor([7, 7, 1 << 40]), torch.tensor([0, 1, 5000])
    for purpose in ("selection", "estimation"):
        alone = [draw_seeds(seeds[[i]], purpose, index[i].item()) for i in range(3)]
        assert torch.equal(draw_seeds(seeds, purpose, index), torch.cat(alone))


def test_certified_accuracy_counts_right_classes_with_the_radius_or_more():
    certificates = [Certificate(0, 0.5), Certificate(1, 0.25), Certificate(0, 0.9), Certificate(-1, 0.0)]
    labels = torch.tensor([0, 1, 1, 1])
    shares = {0: 0.5, "1/4": 0.5, 0.3: 0.25, 0.6: 0.0}
    assert {radius: certified_accuracy(certificates, labels, radius) for radius in shares} == shares
    with pytest.raises(ValueError, match="3 labels for 4 certificates"):
        certified_accuracy(certificates, labels[:3], 0.1)
    with pytest.raises(ValueError, match="no labels|0 labels for 0 certificates"):
        certified_accuracy([], [], 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 9}, "draws=9 and alpha=0.001.* Pass draws from 10"),
        ({"draws": 0}, "draws=0, which is no count"),
        ({"selection": 0}, "selection=0, which is no count"),
        ({"batch_size": 0}, "batch_size=0, which is no count"),
        ({"alpha": 1.0}, "alpha=1.0"),
    ],
)
def test_options_are_refused_before_anything_is_encoded(options, message):
    defence, images = linear()
    defence.classifier = defence.classifier.by(None)
    with pytest.raises(ValueError, match=message):
        certify(defence, images, torch.arange(6), **options)


def test_other_defences_bad_images_and_nan_are_refused():
    defence, images = linear()
    seeds = torch.arange(6)
    with pytest.raises(ValueError, match="You passed RandomNoise, of which nothing is certified"):
        certify(RandomNoise(defence.classifier), images, seeds)
    with pytest.raises(ValueError, match="values from"):
        certify(defence, images * 255, seeds)
    with pytest.raises(ValueError, match="one per image"):
        certify(defence, images, seeds[:2])
    defence.classifier = defence.classifier.by(lambda pixels: torch.full((len(pixels), 2), torch.nan))
    with pytest.raises(FloatingPointError, match="NaN"):
        certify(defence, images, seeds)
