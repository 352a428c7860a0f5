"""The ball that an attack may not leave."""

import pytest
import torch
from support.attacked import length

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks import inside, parse_radius
from hf_pmgaft.attacks.ball import distance, project, round_inside, round_levels_inside, uniform_point


@pytest.mark.parametrize(
    ("radius", "value"), [("4/255", 4 / 255), (0.5, 0.5), ("0.01", 0.01), ("1e-2", 0.01), (0, 0.0)]
)
def test_radii_are_fractions_or_numbers(radius, value):
    assert parse_radius(radius) == pytest.approx(value)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_point_is_projected_to_the_nearest_of_the_ball(norm):
    torch.manual_seed(0)
    images = 0.5 + 0.1 * torch.rand(4, 3, 5, 5)  # far from 0 and 1, so that the ball alone binds
    points = images + torch.randn_like(images)
    projected = project(images, points, 0.1, norm)
    assert (length(projected - images, norm) <= 0.1 * (1 + 1e-5)).all()
    for _ in range(20):
        other = uniform_point(images, 0.1, norm, torch.randint(2**40, (4,)), 0)
        assert ((projected - points).flatten(1).norm(dim=1) <= (other - points).flatten(1).norm(dim=1)).all()
    near = images + 0.001
    torch.testing.assert_close(project(images, near, 0.1, norm), near)


def test_a_point_inside_is_a_valid_image_in_the_ball():
    images = torch.full((4, 1, 1, 2), 0.95)
    points = images + torch.tensor([0.04, 0.06, 0.0, -0.2]).view(4, 1, 1, 1)
    assert inside(images, points, 0.1, "linf").tolist() == [True, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_half_precision_never_leaves_the_ball(dtype):
    torch.manual_seed(0)
    images = torch.rand(8, 3, 8, 8).to(dtype)
    walk = (images.float() + 0.03 * torch.randn(8, 3, 8, 8).sign()).clamp(0, 1)
    rounded = round_inside(images, walk)
    assert rounded.dtype == dtype
    assert ((rounded.float() - images.float()).abs() <= (walk - images.float()).abs()).all()
    assert ((walk.to(dtype).float() - images.float()).abs() > (walk - images.float()).abs()).any()  # as plain rounding


@pytest.mark.parametrize(("norm", "eps"), [("l1", 3.0), ("l2", 0.3), ("linf", 2.6 / 255), ("l2", 20.0)])
def test_rounding_to_levels_stays_in_the_ball_and_near_the_point(norm, eps):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 8, 8)) / 255
    change = torch.randn_like(images)
    points = (images + change * (eps / distance(change, 0 * change, norm)).view(-1, 1, 1, 1)).clamp(0, 1)
    rounded = round_levels_inside(images, points, eps, norm)

    levels, changes = (255 * rounded.double()).round(), (255 * (rounded.double() - images.double())).round()
    torch.testing.assert_close(rounded.double(), levels / 255, rtol=0, atol=1e-7)
    assert (distance(0 * changes, changes, norm) <= 255 * eps).all() and (0 <= levels).all() and (levels <= 255).all()
    assert ((rounded - points).abs() < 1 / 255 + 1e-6).all()  # no pixel goes further than to the level beside it
    if norm != "linf":  # and the ball is used: one more of the changes that were taken back would leave it
        nearest = (255 * points.double()).round()
        taken_back = (nearest != levels).flatten(1).sum(1)
        assert (taken_back < 0.5 * images[0].numel()).all()


def test_a_point_whose_nearest_levels_are_inside_goes_to_them():
    images = torch.full((1, 1, 1, 3), 100 / 255)
    points = torch.tensor([[[[101.4, 98.6, 100.2]]]]) / 255
    rounded = round_levels_inside(images, points, 2 / 255, "l2")
    assert (255 * rounded).round().flatten().tolist() == [101, 99, 100]


@pytest.mark.parametrize(("norm", "eps"), [("l1", 6.0), ("l2", 0.05)])
def test_images_between_levels_are_rounded_inside_too(norm, eps):
    torch.manual_seed(0)
    images = torch.rand(6, 3, 16, 16)
    points = project(images, images + torch.randn_like(images), eps, "l2") if norm == "l2" else images + eps / 768
    points = points.clamp(0, 1)
    nearest = (255 * points).round() / 255
    assert (distance(images, nearest, norm) > eps).any()

    rounded = round_levels_inside(images, points, eps, norm)
    assert inside(images, rounded, eps, norm).all()
    torch.testing.assert_close(255 * rounded, (255 * rounded).round(), rtol=0, atol=1e-4)
    spec = AttackSpec.of({"attack": "apgd", "norm": norm, "eps": eps})
    assert torch.equal(spec.round_to_8_bits(images, points), rounded)
