"""Which axis of an array holds the channels, and which number is white."""

import numpy as np
import pytest
import torch

from hf_pmgaft.data import image_of_numbers

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_every_level_comes_back_from_floats(kind):
    for top in (1, 255):
        floats = (LEVELS / 255 * top).astype(kind)
        assert np.array_equal(np.asarray(image_of_numbers(floats)), LEVELS)
        assert np.array_equal(np.asarray(image_of_numbers(torch.from_numpy(floats))), LEVELS)


def test_where_both_axes_could_hold_channels_tensors_have_them_first_and_arrays_last():
    array = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert image_of_numbers(array).size == (5, 3)
    assert image_of_numbers(torch.from_numpy(array)).size == (3, 5)
    assert np.array_equal(np.asarray(image_of_numbers(torch.from_numpy(array))), array.transpose(1, 2, 0))


def test_the_scale_of_floats_changes_above_1():
    def top(*values):
        return image_of_numbers(np.array([values], dtype=np.float32)).getpixel((0, 0))

    assert (top(1.0), top(1.05, 0), top(2.0), top(3.5)) == (255, 255, 2, 4)
    with pytest.raises(ValueError, match="neither in"):
        top(1.5)


def test_what_was_passed_stays_as_it_is():
    array = np.ones((4, 4, 3), np.float32)
    tensor = torch.ones(3, 4, 4, requires_grad=True)
    image_of_numbers(array), image_of_numbers(tensor)
    assert (array == 1).all() and (tensor == 1).all() and tensor.requires_grad
