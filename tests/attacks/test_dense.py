"""Walks on pixels: what is kept, for whom, and what becomes of ignored pixels; which attacks there are."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks.dense import ByLargestLogit, DenseBatch, FewestRight
from hf_pmgaft.attacks.dense_checks import check_dense, check_whole, is_of_pixels
from hf_pmgaft.attacks.dense_losses import DENSE_LOSSES, OF_PIXELS
from hf_pmgaft.attacks.pgd import pgd

METRICS = json.loads((Path(__file__).parents[1] / "golden" / "segmentation.json").read_text())["metrics"]
EPS = "8/255"
SPECS = [f"pgd,eps={EPS},num_steps=6,loss={loss}" for loss in sorted(DENSE_LOSSES)]
SPECS += [f"apgd,eps={EPS},num_steps=10,loss={loss}" for loss in ("ce", "js", "masked_spherical")]
SPECS += [
    f"fgsm,eps={EPS},loss=segpgd",
    f"sea,eps={EPS},num_steps=10",
    "pgd,eps=0.3,norm=l2,num_steps=6,restarts=2,momentum=0.5,loss=masked_ce",
    "apgd,eps=0.3,norm=l2,num_steps=10,restarts=2,loss=masked_ce",
]
specs = pytest.mark.parametrize("text", SPECS)


@pytest.fixture
def small():
    """A net that is right about three pixels of four, images, and masks of which some pixels are ignored."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 4, 3, padding=1)).double()
    net.requires_grad_(False)
    segmenter = ByLargestLogit(lambda images: 20 * net(images.double()).float())
    images = torch.rand(6, 3, 8, 8)
    masks = segmenter.predict(segmenter(images))
    masks[torch.rand(masks.shape) < 0.25] = 0
    masks[torch.rand(masks.shape) < 0.1] = -1
    return segmenter, images, masks


def accuracy(segmenter, images, masks) -> torch.Tensor:
    right = (segmenter.predict(segmenter(images)) == masks) & (masks >= 0)
    return right.flatten(1).sum(1) / (masks >= 0).flatten(1).sum(1)


def count_points(segmenter, visited: list) -> ByLargestLogit:
    """The same segmenter, which notes the points that it sees."""

    def seen(images):
        visited.append(images.detach().clone())
        return segmenter(images)

    return ByLargestLogit(seen)


# ---- What comes back ----


@specs
@pytest.mark.parametrize("any_iterate", [True, False])
def test_what_comes_back_is_what_the_threat_allows_and_worse_than_before(small, text, any_iterate):
    segmenter, images, masks = small
    spec, random = AttackSpec.parse(text), torch.get_rng_state()
    adversarial = spec.run_dense(segmenter, images, masks, torch.arange(6), any_iterate=any_iterate)
    assert adversarial.dtype == torch.float32 and not adversarial.requires_grad
    assert spec.allows(images, adversarial).all() and torch.equal(random, torch.get_rng_state())
    before, after = accuracy(segmenter, images, masks), accuracy(segmenter, adversarial, masks)
    assert after.mean() < before.mean() - 0.02
    if any_iterate or spec.attack == "sea":
        assert (after <= before).all()


@specs
def test_an_image_fares_in_company_as_it_does_alone(small, text):
    segmenter, images, masks = small
    spec, seeds = AttackSpec.parse(text), torch.tensor([5, -3, 2**40, 7, 11, 0])
    whole = spec.run_dense(segmenter, images, masks, seeds, any_iterate=True)
    part = [4, 2, 0]
    alone = spec.run_dense(segmenter, images[part], masks[part], seeds[part], any_iterate=True)
    torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-6)
    others = spec.run_dense(segmenter, images, masks, seeds + 1, any_iterate=True)
    assert torch.equal(others, whole) == (spec.attack == "fgsm")


@specs
def test_a_radius_of_0_changes_no_pixel(small, text):
    segmenter, images, masks = small
    options = {**AttackSpec.parse(text).to_dict(), "eps": 0}
    options.pop("step_size", None)
    for any_iterate in (True, False):
        spec = AttackSpec.of(options)
        assert torch.equal(spec.run_dense(segmenter, images, masks, torch.arange(6), any_iterate=any_iterate), images)


@specs
def test_images_without_a_labelled_pixel_come_back_as_they_are(small, text):
    segmenter, images, masks = small
    masks = masks.clone()
    masks[1] = -1
    spec = AttackSpec.parse(text)
    for any_iterate in (True, False):
        adversarial = spec.run_dense(segmenter, images, masks, torch.arange(6), any_iterate=any_iterate)
        assert adversarial.isfinite().all() and torch.equal(adversarial[1], images[1])
        nothing = torch.full_like(masks, -1)
        assert torch.equal(spec.run_dense(segmenter, images, nothing, torch.arange(6)), images)


# ---- Which point is kept ----


def test_of_all_points_in_the_ball_the_latest_with_the_fewest_right_pixels_is_kept(small):
    segmenter, images, masks = small
    for text in (f"pgd,eps={EPS},num_steps=6,loss=masked_ce", "apgd,eps=0.3,norm=l2,num_steps=9,loss=js"):
        visited, spec = [], AttackSpec.parse(text)
        found = spec.run_dense(
            count_points(segmenter, visited), images[:1], masks[:1], torch.tensor([3]), any_iterate=True
        )
        assert torch.equal(visited[0], images[:1]) and len(visited) == 2 + spec.options["num_steps"]
        counts = [accuracy(segmenter, point, masks[:1]).item() for point in visited]
        latest = max(number for number, count in enumerate(counts) if count == min(counts))
        assert torch.equal(found, visited[latest])

        visited = []
        last = spec.run_dense(count_points(segmenter, visited), images[:1], masks[:1], torch.tensor([3]))
        assert torch.equal(last, visited[-1])


def test_pgd_on_cross_entropy_walks_as_pgd_on_images_does_where_all_pixels_are_labelled(small):
    segmenter, images, masks = small
    masks = masks.clamp_min(0)

    def loss_fn(points):
        logits = segmenter(points)
        return nn.functional.cross_entropy(logits, masks, reduction="none").flatten(1).mean(1)

    options = dict(eps=EPS, num_steps=5, seeds=torch.arange(6))
    expected = pgd(None, images, None, loss_fn=loss_fn, **options)
    spec = AttackSpec.parse(f"pgd,eps={EPS},num_steps=5")
    torch.testing.assert_close(spec.run_dense(segmenter, images, masks, torch.arange(6)), expected)


def test_an_image_leaves_once_none_of_its_pixels_is_right():
    images, masks = torch.full((3, 3, 2, 2), 0.5), torch.zeros(3, 2, 2, dtype=torch.long)
    # The first is wrong from the start, the second after a step; the third withstands.
    lead = torch.tensor([-0.1, 0.01, 0.5]).view(3, 1, 1)
    rows, sizes = {0.3: 0, 0.4: 1, 0.5: 2}, []
    for number, grey in enumerate(rows):
        images[number] = grey

    def function(points):
        sizes.append(len(points))
        own = lead[[min(rows.values(), key=lambda row: (image - images[row]).abs().amax()) for image in points]]
        return torch.stack([points[:, 0] - points[:, 1] + own, 0 * points[:, 1]], dim=1)

    spec = AttackSpec.parse("pgd,eps=8/255,num_steps=4,random_start=false,loss=masked_ce")
    adversarial = spec.run_dense(ByLargestLogit(function), images, masks, torch.arange(3), any_iterate=True)
    assert sizes == [3, 2, 2, 1, 1, 1]
    assert torch.equal(adversarial[0], images[0])
    assert accuracy(ByLargestLogit(function), adversarial, masks).tolist() == [0, 0, 1]


def test_the_worst_of_several_attacks_is_the_golden_one():
    case, masks = METRICS["worst_case"], torch.tensor(METRICS["labels"])
    tries = torch.tensor(case["predictions_by_attack"])
    fewest = FewestRight(torch.full((len(masks), 1), -1))
    for number, predicted in enumerate(tries):
        counts = (predicted == masks).logical_and(masks >= 0).flatten(1).sum(1)
        fewest.keep(torch.arange(len(masks)), torch.full((len(masks), 1), number), counts)
    assert fewest.points.flatten().tolist() == case["chosen_attack"]
    found = (fewest.counts / (masks >= 0).flatten(1).sum(1)).mean().item()
    assert found == pytest.approx(case["pixel_accuracy"], rel=1e-6)


# ---- Which attacks there are ----


def test_losses_of_pixels_are_refused_where_images_are_classified_as_a_whole(small):
    _, images, _ = small
    for text in [f"{attack},eps={EPS},loss={loss}" for attack in ("pgd", "apgd", "fgsm") for loss in OF_PIXELS]:
        spec = AttackSpec.parse(text)
        assert is_of_pixels(spec)
        with pytest.raises(
            ValueError, match=f"{spec.options['loss']} is a loss of pixels; images as a whole have none"
        ):
            check_whole(spec)
    spec = AttackSpec.parse(f"sea,eps={EPS}")
    for run in (
        lambda: check_whole(spec),
        lambda: spec.walk(4),
        lambda: spec.run(lambda x: x.flatten(1), images, torch.zeros(6, dtype=torch.long), torch.arange(6)),
    ):
        with pytest.raises(ValueError, match="SEA-300 linf 8/255, but sea is an attack on the pixels of segmentation"):
            run()
    for text in (f"pgd,eps={EPS}", f"apgd,eps={EPS},loss=dlr", "corruption,kind=jpeg,severity=3"):
        check_whole(AttackSpec.parse(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cw,eps=0.5", "CW l2 0.5.*no attack on pixels.*pgd, sea"),
        ("patch,size=3", "3x3.*no attack on pixels"),
        ("corruption,kind=jpeg,severity=3", "jpeg 3, which is no attack on pixels"),
        ("autoattack,eps=4/255", "AutoAttack standard linf 4/255, which is no attack on pixels"),
        ("apgd,eps=4/255,loss=dlr", "whose loss is none of pixels. Pass the loss ce, cospgd"),
        ("pgd,eps=4/255,tau=1", "Leave tau out"),
    ],
)
def test_what_is_no_attack_on_pixels_is_refused(small, text, message):
    segmenter, images, masks = small
    spec = AttackSpec.parse(text)
    with pytest.raises(ValueError, match=message):
        check_dense(spec)
    with pytest.raises(ValueError, match=message):
        spec.run_dense(segmenter, images, masks, torch.arange(6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, masks: (images, masks[:, 1:]), r"masks of torch.int64 of shape \(6, 7, 8\)"),
        (lambda images, masks: (images, masks.float()), r"masks of torch.float32 of shape \(6, 8, 8\)"),
        (lambda images, masks: (images, None), "masks of NoneType"),
        (
            lambda images, masks: (images, masks.masked_fill(masks < 0, 255)),
            "values up to 255, but there are 4 classes",
        ),
        (lambda images, masks: (255 * images, masks), "Divide them by 255"),
    ],
)
def test_masks_and_images_that_do_not_fit_are_refused(small, change, message):
    segmenter, images, masks = small
    spec = AttackSpec.parse(f"pgd,eps={EPS},loss=js")
    with pytest.raises(ValueError, match=message):
        spec.run_dense(segmenter, *change(images, masks), torch.arange(6))


def test_what_are_no_logits_of_pixels_is_refused(small):
    _, images, masks = small
    for function in (lambda x: x.flatten(1), lambda x: x[:, :1], lambda x: x[..., 1:], lambda x: (x,)):
        with pytest.raises(ValueError, match=r"segmenter returned .* where an attack needs logits \[B,K,H,W\]"):
            DenseBatch(ByLargestLogit(function), images, masks, eps=0.1, norm="linf", any_iterate=True)
    with pytest.raises(FloatingPointError, match="NaN"):
        DenseBatch(
            ByLargestLogit(lambda x: (x - 0.5).log().repeat(1, 2, 1, 1)), images, masks, 0.1, "linf", any_iterate=True
        )
