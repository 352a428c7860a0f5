"""Random crops: where they lie, how large they are, and what they follow from."""

import torch

from hf_pmgaft.defences.crops import resized_crops


def frames(num_crops: int, height: int = 100, width: int = 100) -> torch.Tensor:
    """Width, height, middle (x, y) of crops, from 0 to 1, and whether they are mirrored: `[N,5]`."""
    down = ((torch.arange(height) + 0.5) / height).view(-1, 1).expand(height, width)
    across = ((torch.arange(width) + 0.5) / width).expand(height, width)
    crops = resized_crops(torch.stack([across, down, across])[None], torch.tensor([3]), num_crops, size=2)[0]
    # Two pixels lie at a quarter and at three quarters of a crop.
    left, right = crops[:, 0, 0].unbind(1)
    top, bottom = crops[:, 1, :, 0].unbind(1)
    wide, high = 2 * (right - left).abs(), 2 * (bottom - top)
    return torch.stack([wide, high, (left + right) / 2, (top + bottom) / 2, (left > right).float()], dim=1)


def test_crops_have_the_areas_and_ratios_of_random_resized_crops():
    wide, high, x, y, _ = frames(2000).unbind(1)
    area, ratio = wide * high, wide / high
    assert 0.079 < area.min() < 0.1 and area.max() > 0.95
    assert 0.74 < ratio.min() < 0.78 and 1.29 < ratio.max() < 1.34
    fits = area < 0.7
    assert abs(area[fits].mean() - 0.39) < 0.02
    assert abs(ratio[fits].log().mean()) < 0.02


def test_crops_lie_inside_everywhere_and_one_in_two_is_mirrored():
    wide, high, x, y, mirrored = frames(2000).unbind(1)
    for length, middle in ((wide, x), (high, y)):
        low, top = middle - length / 2, middle + length / 2
        assert low.min() > -0.011 and top.max() < 1.011
        place = (low / (1 - length))[length < 0.9]
        assert abs(place.mean() - 0.5) < 0.02 and place.min() < 0.02 and place.max() > 0.98
    assert 0.46 < mirrored.mean() < 0.54


def test_ratios_are_those_of_pixels_where_the_image_is_wide():
    wide, high, _, _, _ = frames(2000, height=50, width=100).unbind(1)
    ratio = (wide * 100 / (high * 50))[wide * high < 0.3]
    assert 0.74 < ratio.min() and ratio.max() < 1.35 and abs(ratio.log().mean()) < 0.03


def test_crops_follow_from_their_images_seed_alone():
    images, seeds = torch.rand(3, 3, 9, 11), torch.tensor([4, 5, 4])
    crops = resized_crops(images, seeds, num_crops=6, size=8)
    alone = resized_crops(images[1:2], seeds[1:2], num_crops=6, size=8)
    assert torch.equal(crops[1:2], alone)
    images[2] = images[0]
    again = resized_crops(images, seeds, num_crops=6, size=8)
    assert torch.equal(again[0], again[2])
    assert not torch.equal(crops[0, 0], crops[0, 1])
