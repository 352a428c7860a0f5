"""Augmentation follows from each image and its seed, in any batch, and stays in [0,1]."""

import pytest
import torch

from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import (
    augment,
    content_id,
)


@pytest.fixture(scope="module")
def augmented() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seeds = sample_seeds(0, 0, torch.arange(200))
    return images, seeds, augment(images, seeds, 1.0)


def test_augmentation_is_a_function_of_image_and_seed_in_any_batch(augmented):
    images, seeds, out = augmented
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(augment(images[order], seeds[order], 1.0), out[order], rtol=0, atol=1e-6)
    torch.testing.assert_close(augment(images[7:8], seeds[7:8], 1.0), out[7:8], rtol=0, atol=1e-6)
    state = torch.random.get_rng_state()
    augment(images, seeds, 1.0)
    assert torch.equal(state, torch.random.get_rng_state())
    same_image = augment(images[:1].expand(200, -1, -1, -1), seeds, 1.0)
    assert len({content_id(image) for image in same_image}) == 200


def test_augmentation_stays_in_0_1_and_strength_0_is_none(augmented):
    images, seeds, out = augmented
    assert out.min() == 0 and out.max() == 1 and (out - images).abs().mean() > 0.1
    assert torch.equal(augment(images, seeds, 0.0), images)


def gradient(count: int) -> torch.Tensor:
    """Images that grow brighter to the right."""
    return torch.linspace(0.3, 0.7, 16).expand(count, 3, 16, 16)


def test_half_of_the_images_are_flipped(augmented):
    _, seeds, _ = augmented
    out = augment(gradient(200), seeds, 0.3)
    flipped = out[..., :4].mean((1, 2, 3)) > out[..., -4:].mean((1, 2, 3))
    assert 0.4 < flipped.float().mean() < 0.6
    small = augment(gradient(200), seeds, 1e-4)
    mirrored = torch.where(flipped.view(-1, 1, 1, 1), gradient(200).flip(-1), gradient(200))
    torch.testing.assert_close(small, mirrored, rtol=0, atol=1e-3)
