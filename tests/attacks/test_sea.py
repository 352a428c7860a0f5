"""SEA against golden values; it is as strong as its parts, and leaves no ball."""

import json
from pathlib import Path

import pytest
import torch

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks.apgd_steps import DenseSteps
from hf_pmgaft.attacks.ball import inside
from hf_pmgaft.attacks.dense import ByLargestLogit, DenseBatch
from hf_pmgaft.attacks.dense_losses import controlling_loss, dense_loss
from hf_pmgaft.attacks.passes import most_passes
from hf_pmgaft.attacks.sea import SEA_LOSSES, phases, sea, walk_in_phases

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "segmentation.json").read_text())["apgd"]
LOSSES = {
    "mask-ce-avg": "masked_ce",
    "segpgd-loss": "segpgd",
    "js-avg": "js",
    "mask-norm-corrlog-avg": "masked_spherical",
}
cases = pytest.mark.parametrize("case", LOSSES)


def golden(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


WEIGHT, BIAS, IMAGES = golden(GOLDEN["weight"]), golden(GOLDEN["bias"]), golden(GOLDEN["images"])
MASKS, EPS, NUM_STEPS = torch.tensor(GOLDEN["labels"]), GOLDEN["eps"], GOLDEN["num_steps"]
linear = ByLargestLogit(lambda x: torch.einsum("kc,bchw->bkhw", WEIGHT, x - 0.5) + BIAS.view(1, -1, 1, 1))


def batch_of(masks=MASKS, eps=EPS, segmenter=linear, images=IMAGES) -> DenseBatch:
    return DenseBatch(segmenter, images, masks, eps, "linf", any_iterate=True)


def share_right(points, masks, segmenter=linear) -> torch.Tensor:
    right = (segmenter.predict(segmenter(points)) == masks) & (masks >= 0)
    return right.flatten(1).sum(1) / (masks >= 0).flatten(1).sum(1)


# ---- Golden values ----


@cases
def test_phases_end_at_the_golden_points(case):
    batch, expected = batch_of(), GOLDEN["cases"][case]
    walk_in_phases(batch, LOSSES[case], NUM_STEPS, torch.arange(2), number=0, random_start=False)
    torch.testing.assert_close(batch.kept.points, golden(expected["adversarial_images"]), rtol=0, atol=1e-10)
    assert share_right(batch.kept.points, MASKS).tolist() == pytest.approx(expected["pixel_accuracy"], rel=1e-6)


@cases
def test_one_walk_comes_by_the_golden_points(case):
    batch, expected = batch_of(), GOLDEN["cases"][case]["single_radius"]
    steps = DenseSteps(EPS, "linf", NUM_STEPS)
    state = steps.begin_at(IMAGES, IMAGES)
    lowest = batch.run(torch.arange(2), state, steps.advance, LOSSES[case], NUM_STEPS)
    torch.testing.assert_close(lowest, golden(expected["lowest_accuracy_images"]), rtol=0, atol=1e-10)

    # The last point may be the best one, which a walk itself has no more use for.
    last = dense_loss(controlling_loss(LOSSES[case]), linear(state["points"]), MASKS)
    highest = torch.where((last > state["best_losses"]).view(-1, 1, 1, 1), state["points"], state["best_points"])
    torch.testing.assert_close(last.maximum(state["best_losses"]), golden(expected["best_loss"]), rtol=1e-7, atol=0)
    torch.testing.assert_close(highest, golden(expected["highest_loss_images"]), rtol=0, atol=1e-7)


def test_ignored_pixels_do_not_bring_the_clean_image_back():
    case = GOLDEN["quirk_ignored_pixels"]
    masks = torch.tensor(case["labels"])
    assert case["accuracy_on_labelled_pixels"][0] == 1.0 and (masks < 0).any()
    batch = batch_of(masks)
    walk_in_phases(batch, "masked_ce", NUM_STEPS, torch.arange(2), number=0, random_start=False)
    found = share_right(batch.kept.points, masks)
    assert found[0] < 1 and (found <= golden(case["accuracy_on_labelled_pixels"])).all()
    assert not torch.equal(batch.kept.points[0], IMAGES[0])


# ---- What holds of it anywhere ----


@pytest.fixture
def wavy():
    """A segmenter whose losses go up and down, images, and masks that it is mostly right about."""
    torch.manual_seed(0)
    first, last = 40 * torch.randn(16, 3), 3 * torch.randn(5, 16)

    def function(x):
        hidden = torch.einsum("kc,bchw->bkhw", first, torch.nn.functional.avg_pool2d(x, 3, 1, 1)).sin()
        return torch.einsum("kc,bchw->bkhw", last, hidden)

    segmenter, images = ByLargestLogit(function), torch.rand(5, 3, 8, 8)
    masks = segmenter.predict(segmenter(images))
    masks[torch.rand(masks.shape) < 0.2] = -1
    return segmenter, images, masks


@pytest.mark.parametrize("eps", [1 / 255, 4 / 255])
def test_it_is_as_strong_as_each_of_its_parts_on_every_image(wavy, eps):
    segmenter, images, masks = wavy
    seeds = torch.arange(5)
    worst = share_right(sea(segmenter, images, masks, eps=eps, num_steps=20, seeds=seeds), masks, segmenter)
    parts = []
    for number, loss in enumerate(SEA_LOSSES):
        batch = batch_of(masks, eps, segmenter, images)
        walk_in_phases(batch, loss, 20, seeds, number)
        parts.append(share_right(batch.kept.points, masks, segmenter))
    assert torch.equal(worst, torch.stack(parts).amin(0))
    assert (torch.stack(parts).amin(0) < parts[0]).any()


def test_more_steps_and_restarts_are_hardly_weaker_and_a_restart_never(wavy):
    segmenter, images, masks = wavy
    options = dict(eps=2 / 255, seeds=torch.arange(5))
    one = share_right(sea(segmenter, images, masks, num_steps=20, **options), masks, segmenter)
    two = share_right(sea(segmenter, images, masks, num_steps=20, restarts=2, **options), masks, segmenter)
    assert (two <= one).all()
    stronger = share_right(sea(segmenter, images, masks, num_steps=40, restarts=2, **options), masks, segmenter)
    assert stronger.mean() <= one.mean()


def test_walks_begin_outside_the_ball_and_end_in_it(wavy):
    segmenter, images, masks = wavy
    visited = []

    def noted(x):
        visited.append(x.detach())
        return segmenter(x)

    eps, image, mask = 4 / 255, images[:1], masks[:1]
    adversarial = sea(ByLargestLogit(noted), image, mask, eps=eps, num_steps=10, seeds=torch.tensor([7]))
    assert inside(image, adversarial, eps, "linf").all()

    # Of each of four walks: three phases of 3, 3 and 4 steps, each with its start.
    assert phases(10) == (3, 3, 4) and len(visited) == 1 + 4 * (10 + 3)
    radii = [(point - image).abs().amax().item() / eps for point in visited[1:]]
    for number in range(4):
        of_walk = radii[13 * number : 13 * number + 13]
        assert max(of_walk[:4]) == pytest.approx(2, abs=1e-3) and of_walk[0] > 1.5
        assert max(of_walk[4:8]) <= 1.5 + 1e-4 and max(of_walk[8:]) <= 1 + 1e-4
    starts = [visited[1 + 13 * number] for number in range(4)]
    assert all(not torch.equal(one, other) for one, other in zip(starts, starts[1:], strict=False))


def test_names_options_and_passes():
    spec = AttackSpec.parse("sea,eps=4/255")
    assert spec.name == "SEA-300 linf 4/255" and spec.threat == "linf 4/255" and spec.norm == "linf"
    assert AttackSpec.parse("sea,eps=4/255,num_steps=600,restarts=2").name == "SEA-600 x2 linf 4/255"
    assert most_passes(spec, 21) == (1 + 4 * 303, 4 * 300)
    assert [part.name for part in spec.expand(21)] == [spec.name]
    with pytest.raises(ValueError, match="num_steps=3, but SEA walks in three phases"):
        AttackSpec.parse("sea,eps=4/255,num_steps=3")
    with pytest.raises(ValueError, match="no norm 'l2'"):
        AttackSpec.parse("sea,eps=0.5,norm=l2")
    with pytest.raises(ValueError, match="takes no loss"):
        AttackSpec.parse("sea,eps=4/255,loss=ce")
