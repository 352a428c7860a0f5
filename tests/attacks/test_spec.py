"""Every attack that evaluation can name, by one contract; patches and corruptions."""

import numpy as np
import pytest
import torch
from torch import nn

from hf_pmgaft.attacks import ATTACKS, CORRUPTIONS, SEVERITIES, correct
from hf_pmgaft.attacks.spec import attack_name, check_attack, norm_of, parse_options, run_attack, within_threat

NORMS = {"cw": ("l2", "linf"), "fgsm": ("l2", "linf"), "pgd": ("l2", "linf")}
EPS = {"linf": "8/255", "l2": 0.5, "l1": 6.0}
SHORT = {"square": {"num_queries": 50}, "fgsm": {}, "cw": {"num_steps": 20, "search_steps": 2}}
SPECS = [
    {"attack": name, "eps": EPS[norm], "norm": norm, **SHORT.get(name, {"num_steps": 6})}
    for name in sorted(set(ATTACKS) - {"patch", "corruption"})
    for norm in NORMS.get(name, ("l1", "l2", "linf"))
]
SPECS += [{"attack": "patch", "size": 5, "num_steps": 6}]
SPECS += [{"attack": "corruption", "kind": kind, "severity": 3} for kind in CORRUPTIONS]
SPECS = [check_attack(spec) for spec in SPECS]


@pytest.fixture
def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(8 * 256, 6)).double()
    images = torch.rand(8, 3, 16, 16)
    classifier = lambda x: net(x.double()).float()  # noqa: E731
    with torch.no_grad():
        return net, classifier, images, classifier(images).argmax(1)


@pytest.mark.parametrize("spec", SPECS, ids=attack_name)
class TestContract:
    def test_what_comes_back_is_what_the_threat_allows(self, small, spec):
        net, classifier, images, labels = small
        random = torch.get_rng_state()
        adversarial = run_attack(spec, classifier, images, labels, torch.arange(8), any_iterate=True)
        assert adversarial.dtype == images.dtype and not adversarial.requires_grad
        assert within_threat(spec, images, adversarial).all() and not torch.equal(adversarial, images)
        assert torch.equal(random, torch.get_rng_state()) and all(p.grad is None for p in net.parameters())
        changed = (adversarial != images).flatten(1).any(1)
        if spec["attack"] not in ("pgd", "fgsm", "cw", "corruption"):
            assert (~correct(classifier(adversarial), labels))[changed].all()

    def test_it_depends_on_the_image_and_its_seed_alone(self, small, spec):
        _, classifier, images, labels = small
        seeds = torch.tensor([5, -3, 2**40, 7, 11, 0, 1, 2])
        whole = run_attack(spec, classifier, images, labels, seeds, any_iterate=True)
        part = [6, 2, 0]
        alone = run_attack(spec, classifier, images[part], labels[part], seeds[part], any_iterate=True)
        torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-6)

    def test_leaving_the_threat_is_seen(self, small, spec):
        _, _, images, _ = small
        assert within_threat(spec, images, images).all()
        for wrong in (images + 1.5, images * float("nan")):
            assert not within_threat(spec, images, wrong).any()
        if norm_of(spec):
            assert not within_threat(spec, images, 1 - images).any()


def test_a_patch_is_one_square_anywhere(small):
    _, classifier, images, labels = small
    spec = check_attack({"attack": "patch", "size": 5, "places": 3})
    adversarial = run_attack(spec, classifier, images, labels, torch.arange(8))
    corners = set()
    for delta in (adversarial - images).abs().amax(1):
        rows, columns = delta.amax(1).nonzero().flatten(), delta.amax(0).nonzero().flatten()
        assert len(rows) and rows.max() - rows.min() < 5 and columns.max() - columns.min() < 5
        corners.add((rows.min().item(), columns.min().item()))
    assert len(corners) > 3
    two = images.clone()
    two[:, :, 0, 0], two[:, :, 15, 15] = 0, 1
    assert not within_threat(spec, images, two).any()
    with pytest.raises(ValueError, match="a patch of 20 pixels, which has no place in 16 x 16"):
        ATTACKS["patch"](classifier, images, labels, size=20)


def test_more_places_never_make_a_patch_weaker(small):
    _, classifier, images, labels = small
    standing = []
    for places in (1, 2, 6):
        spec = check_attack({"attack": "patch", "size": 3, "num_steps": 3, "places": places})
        adversarial = run_attack(spec, classifier, images, labels, torch.arange(8))
        standing.append(correct(classifier(adversarial), labels).sum().item())
    assert standing == sorted(standing, reverse=True)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruptions_grow_with_their_severity(kind):
    y, x = np.mgrid[:60, :60] / 59
    image = torch.from_numpy(np.stack([y, x, 0.5 + 0.5 * np.sin(9 * x * y)])).float().expand(4, -1, -1, -1)
    image = 0.25 + 0.3 * image + 0.1 * torch.rand(3, 60, 60, generator=torch.Generator().manual_seed(0))
    change = []
    for severity in SEVERITIES:
        spec = {"attack": "corruption", "kind": kind, "severity": severity}
        corrupted = run_attack(spec, None, image, None, torch.arange(4))
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


def test_options_are_read_from_a_text_with_their_types():
    options = parse_options("pgd,num_steps=100,loss=ce,random_start=false,step_size=1/255")
    assert options == {"attack": "pgd", "num_steps": 100, "loss": "ce", "random_start": False, "step_size": "1/255"}
    with pytest.raises(ValueError, match="no option=value"):
        parse_options("pgd,100")
