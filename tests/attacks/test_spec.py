"""Every attack that evaluation can name, by one contract; patches and corruptions."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hf_pmgaft.attacks import ATTACKS, CORRUPTIONS, SEVERITIES, WITHOUT_BALL, correct
from hf_pmgaft.attacks.spec import AttackSpec

NORMS = {"cw": ("l2", "linf"), "fgsm": ("l2", "linf"), "pgd": ("l2", "linf")}
EPS = {"linf": "8/255", "l2": 0.5, "l1": 6.0}
NAMES = list("abcdef")
SHORT = {"square": {"num_queries": 50}, "fgsm": {}, "cw": {"num_steps": 20, "search_steps": 2}}
SPECS = [
    {"attack": name, "eps": EPS[norm], "norm": norm, **SHORT.get(name, {"num_steps": 6})}
    for name in sorted(set(ATTACKS) - {*WITHOUT_BALL, "universal"})
    for norm in NORMS.get(name, ("l1", "l2", "linf"))
]
SPECS += [{"attack": "patch", "size": 5, "num_steps": 6}]
SPECS += [{"attack": "typographic", "height": 0.75, "letters": letters} for letters in ("word", "random")]
SPECS += [{"attack": "corruption", "kind": kind, "severity": 3} for kind in CORRUPTIONS]
SPECS = [AttackSpec.of(spec) for spec in SPECS]


@pytest.fixture
def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(8 * 256, 6)).double()
    images = torch.rand(8, 3, 16, 16)
    classifier = lambda x: net(x.double()).float()  # noqa: E731
    with torch.no_grad():
        return net, classifier, images, classifier(images).argmax(1)


@pytest.mark.parametrize("spec", SPECS, ids=[spec.name for spec in SPECS])
class TestContract:
    def test_what_comes_back_is_what_the_threat_allows(self, small, spec):
        net, classifier, images, labels = small
        random = torch.get_rng_state()
        adversarial = spec.run(classifier, images, labels, torch.arange(8), any_iterate=True, class_names=NAMES)
        assert adversarial.dtype == images.dtype and not adversarial.requires_grad
        assert spec.allows(images, adversarial).all() and not torch.equal(adversarial, images)
        assert torch.equal(random, torch.get_rng_state()) and all(p.grad is None for p in net.parameters())
        changed = (adversarial != images).flatten(1).any(1)
        if spec.attack not in ("pgd", "fgsm", "cw", "corruption", "typographic"):
            assert (~correct(classifier(adversarial), labels))[changed].all()

    def test_it_depends_on_the_image_and_its_seed_alone(self, small, spec):
        _, classifier, images, labels = small
        seeds = torch.tensor([5, -3, 2**40, 7, 11, 0, 1, 2])
        whole = spec.run(classifier, images, labels, seeds, any_iterate=True, class_names=NAMES)
        part = [6, 2, 0]
        alone = spec.run(classifier, images[part], labels[part], seeds[part], any_iterate=True, class_names=NAMES)
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-6)

    def test_leaving_the_threat_is_seen(self, small, spec):
        _, _, images, _ = small
        assert spec.allows(images, images).all()
        for wrong in (images + 1.5, images * float("nan")):
            assert not spec.allows(images, wrong).any()
        if spec.norm:
            assert not spec.allows(images, 1 - images).any()


def test_a_patch_is_one_square_anywhere(small):
    _, classifier, images, labels = small
    spec = AttackSpec.of({"attack": "patch", "size": 5, "places": 3})
    adversarial = spec.run(classifier, images, labels, torch.arange(8))
    corners = set()
    for delta in (adversarial - images).abs().amax(1):
        rows, columns = delta.amax(1).nonzero().flatten(), delta.amax(0).nonzero().flatten()
        assert len(rows) and rows.max() - rows.min() < 5 and columns.max() - columns.min() < 5
        corners.add((rows.min().item(), columns.min().item()))
    assert len(corners) > 3
    two = images.clone()
    two[:, :, 0, 0], two[:, :, 15, 15] = 0, 1
    assert not spec.allows(images, two).any()
    with pytest.raises(ValueError, match="a patch of 20 pixels, which has no place in 16 x 16"):
        ATTACKS["patch"](classifier, images, labels, size=20)


def test_more_places_never_make_a_patch_weaker(small):
    _, classifier, images, labels = small
    standing = []
    for places in (1, 2, 6):
        spec = AttackSpec.of({"attack": "patch", "size": 3, "num_steps": 3, "places": places})
        adversarial = spec.run(classifier, images, labels, torch.arange(8))
        standing.append(correct(classifier(adversarial), labels).sum().item())
    assert standing == sorted(standing, reverse=True)


def test_places_of_a_patch_are_drawn_from_all_of_the_image():
    images, corners = torch.full((64, 3, 8, 8), 0.5), [set() for _ in range(64)]

    def never_fooled(x):
        for seen, changed in zip(corners, (x != images).any(1), strict=True):
            seen.add(tuple(changed.nonzero().amin(0).tolist()))
        return 0 * x.flatten(1)[:, :2] + torch.tensor([1.0, 0.0])

    ATTACKS["patch"](never_fooled, images, torch.zeros(64, dtype=torch.long), size=5, places=3, num_steps=1)
    assert set.union(*corners) == {(top, left) for top in range(4) for left in range(4)}
    # Three of 16 places, each drawn alone, are 2.8 different ones on average.
    counts = [len(seen) for seen in corners]
    assert max(counts) == 3 and sum(counts) / 64 == pytest.approx(2.8, abs=0.15)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_grow_with_their_severity(kind):
    y, x = np.mgrid[:60, :60] / 59
    image = torch.from_numpy(np.stack([y, x, 0.5 + 0.5 * np.sin(9 * x * y)])).float().expand(4, -1, -1, -1)
    image = 0.25 + 0.3 * image + 0.1 * torch.rand(3, 60, 60, generator=torch.Generator().manual_seed(0))
    change = []
    for severity in SEVERITIES:
        spec = AttackSpec("corruption", {"kind": kind, "severity": severity})
        corrupted = spec.run(None, image, None, torch.arange(4))
        assert corrupted.shape == image.shape and corrupted.min() >= 0 and corrupted.max() <= 1
        change.append((corrupted - image).square().mean().item())
    assert change[0] > 0 and change[-1] > 1.2 * change[0]
    assert change == sorted(change) or kind == "pixelate"  # whose blocks are of unequal width at 0.6


def test_strengths_of_the_corruptions_are_those_of_imagenet_c():
    grey, seeds = torch.full((1, 3, 200, 200), 0.5), torch.tensor([3])
    noise = ATTACKS["corruption"](None, grey, None, kind="gaussian_noise", severity=1, seeds=seeds) - grey
    assert noise.std().item() == pytest.approx(0.08, rel=0.02) and abs(noise.mean()) < 1e-3
    salted = ATTACKS["corruption"](None, grey, None, kind="impulse_noise", severity=5, seeds=seeds)
    assert (salted != grey).float().mean().item() == pytest.approx(0.27, abs=0.005)
    assert ((salted == 1).sum() / (salted == 0).sum()).item() == pytest.approx(1, abs=0.05)
    ramp = torch.linspace(0, 1, 200).expand(1, 3, 200, 200)
    flat = ATTACKS["corruption"](None, ramp, None, kind="contrast", severity=4)
    assert (flat.std() / ramp.std()).item() == pytest.approx(0.1, rel=1e-3)


def jpeg_of(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(file)) / 255).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_severity_has_its_strength(severity):
    grey, ramp = torch.full((1, 3, 200, 200), 0.5), torch.linspace(0, 1, 200).expand(1, 3, 200, 200)
    place = severity - 1

    def corrupted(kind, images):
        return ATTACKS["corruption"](None, images, None, kind=kind, severity=severity, seeds=torch.tensor([3]))

    def deviation(kind):  # what clipping leaves as it is: 68.27 % of normal numbers are nearer than one
        return (corrupted(kind, grey) - grey).abs().flatten()[:100_000].quantile(0.6827).item()

    assert deviation("gaussian_noise") == pytest.approx((0.08, 0.12, 0.18, 0.26, 0.38)[place], rel=0.02)
    assert deviation("speckle_noise") == pytest.approx(0.5 * (0.15, 0.2, 0.35, 0.45, 0.6)[place], rel=0.02)
    changed = (corrupted("impulse_noise", grey) != grey).float().mean().item()
    assert changed == pytest.approx((0.03, 0.06, 0.09, 0.17, 0.27)[place], abs=0.003)
    brighter = corrupted("brightness", grey / 2) - grey / 2
    torch.testing.assert_close(brighter, torch.full_like(grey, (0.1, 0.2, 0.3, 0.4, 0.5)[place]))
    flat = corrupted("contrast", ramp)
    assert (flat.std() / ramp.std()).item() == pytest.approx((0.4, 0.3, 0.2, 0.1, 0.05)[place], rel=1e-3)
    assert len(corrupted("pixelate", ramp)[0, 0, 0].unique()) == (120, 100, 80, 60, 50)[place]
    torch.testing.assert_close(corrupted("jpeg", ramp), jpeg_of(ramp, quality=(25, 18, 15, 10, 7)[place]))


# ---- Names ----


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        ({"attack": "pgd", "eps": "4/255", "num_steps": 50, "loss": "margin"}, "PGD-50 margin linf 4/255"),
        ({"attack": "pgd", "eps": "4/255", "restarts": 5}, "PGD-10 x5 ce linf 4/255"),
        ({"attack": "pgd", "eps": "4/255", "step_size": "2/255"}, "PGD-10 ce linf 4/255 (step_size=2/255)"),
        ({"attack": "fgsm", "eps": "4/255"}, "FGSM ce linf 4/255"),
        ({"attack": "apgd", "eps": 0.5, "norm": "l2", "loss": "dlr"}, "APGD-DLR l2 0.5"),
        ({"attack": "apgd_t", "eps": "4/255", "num_steps": 20}, "APGD-T linf 4/255 (num_steps=20)"),
        ({"attack": "cw", "eps": 0.5}, "CW l2 0.5"),
        ({"attack": "autoattack", "eps": "4/255"}, "AutoAttack standard linf 4/255"),
        ({"attack": "patch", "size": 16}, "PATCH 16x16"),
        ({"attack": "corruption", "kind": "jpeg", "severity": 2}, "jpeg 2"),
    ],
)
def test_attacks_are_named_by_what_they_do(attack, name):
    assert AttackSpec.of(attack).name == name


def test_a_spec_is_made_of_a_dict_a_text_or_another_one():
    given = {"attack": "pgd", "eps": "4/255", "num_steps": 50}
    spec = AttackSpec.of(given)
    assert (
        spec == AttackSpec.of("pgd,eps=4/255,num_steps=50") == AttackSpec.of(spec) == AttackSpec.stored(spec.to_dict())
    )
    assert given == {"attack": "pgd", "eps": "4/255", "num_steps": 50}
    assert given.items() <= spec.to_dict().items() and list(spec.to_dict())[0] == "attack"


def test_what_is_stored_is_taken_as_it_stands():
    entry = {"attack": "pgd", "eps": "4/255", "an_option_of_old": 3}
    assert AttackSpec.stored(entry).to_dict() == entry
    with pytest.raises(ValueError, match="takes no an_option_of_old"):
        AttackSpec.of(entry)


# ---- What cannot run ----


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ({"attack": "apgd", "eps": "1/255", "steps": 3}, "takes no steps.*num_steps"),
        ({"attack": "pgd", "eps": "1/255", "norm": "l1"}, "no norm 'l1'"),
        ({"attack": "patch"}, "has no size"),
        ({"attack": "corruption", "kind": "rain", "severity": 1}, "no kind 'rain'"),
        ({"attack": "corruption", "kind": "jpeg", "severity": 6}, "no severity 6"),
        ({"attack": "square", "eps": "1/255", "num_queries": 0}, "num_queries=0"),
        ({"attack": "autoattack", "eps": "1/255", "version": "rand"}, "no version 'rand'"),
        ({"attack": "pgd", "eps": "1/255", "loss": "hinge"}, "no loss 'hinge'"),
    ],
)
def test_attacks_that_cannot_run_are_refused(attack, message):
    with pytest.raises(ValueError, match=message):
        AttackSpec.of(attack)


@pytest.mark.parametrize("name", ["apgd", "cw", "fab_t", "patch", "pgd", "square"])
def test_logits_that_are_nan_on_the_way_are_no_verdict(small, name):
    _, classifier, images, labels = small
    spec = AttackSpec.of({"attack": name, **({"size": 5} if name == "patch" else {"eps": 0.1})})

    def broken(x):
        changed = (x != images[: len(x)]).flatten(1).any(1)
        return torch.where(changed.unsqueeze(1), torch.nan, classifier(x))

    with pytest.raises(FloatingPointError, match="NaN or infinite, so that no verdict"):
        spec.run(broken, images, labels, torch.arange(8), any_iterate=True, class_names=NAMES)
