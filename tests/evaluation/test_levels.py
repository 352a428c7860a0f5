"""Images as 8-bit levels, and the exact way back."""

import pytest
import torch

from hf_pmgaft.evaluation.levels import TABLES, to_floats, to_levels

LEVELS = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def is_same_to_the_bit(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize(
    "image",
    [
        (LEVELS.double() * (1 / 255)).float(),  # NumPy's way, in float64
        LEVELS.float() / 255,
        LEVELS * (1 / 255),  # torchvision's
        LEVELS.float() * 0.003921568859368563,
    ],
    ids=["by numpy", "divided", "by torchvision", "times the reciprocal"],
)
def test_images_of_8_bits_come_back_to_the_bit(image):
    levels, table = to_levels(image)
    assert levels.dtype == torch.uint8 and torch.equal(levels, LEVELS)
    assert is_same_to_the_bit(to_floats(levels, torch.tensor(table)), image)


def test_the_two_ways_to_scale_are_told_apart():
    assert (TABLES[0] != TABLES[1]).sum() == 126
    batch = torch.stack([LEVELS.float() / 255, LEVELS * (1 / 255)])
    levels, tables = zip(*(to_levels(image) for image in batch), strict=True)
    assert tables == (0, 1)
    assert is_same_to_the_bit(to_floats(torch.stack(levels), torch.tensor(tables, dtype=torch.uint8)), batch)


@pytest.mark.parametrize("value", [-0.0, 0.5, 1.0 + 2**-23, 51 / 255 + 2**-26, float("nan"), 300.0, -1.0])
def test_one_pixel_between_two_levels_keeps_an_image_from_8_bits(value):
    image = LEVELS.float() / 255
    image[1, 2, 3] = value
    assert to_levels(image) is None


def test_images_that_are_no_copy_of_their_own_are_read_where_they_lie():
    image = (LEVELS.float() / 255).permute(1, 2, 0).contiguous().permute(2, 0, 1)[:, ::2]
    assert is_same_to_the_bit(to_floats(to_levels(image)[0], torch.tensor(0)), image.contiguous())
