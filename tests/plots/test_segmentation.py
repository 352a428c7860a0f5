"""The gallery of segmentation: what each panel and the legend show, read from the figure and from the file."""

import numpy as np
import pytest
import torch
from support.drawn import is_drawn

from hf_pmgaft.plots import segmentation_gallery

NAMES = ["background", "cat", "cash $ and $", "a class whose name is very long"]
MASKS = [torch.tensor([[0, 1], [1, -1]]), torch.tensor([[2, 2, 0], [0, 0, 0]])]


def draw(file, predictions=None, masks=MASKS, **options):
    images = [torch.full((3, *mask.shape), 0.25 * (1 + number)) for number, mask in enumerate(masks)]
    if predictions is None:
        predictions = {"before, clean": MASKS, "before, attacked": [MASKS[0].clamp_min(0), MASKS[1] + 1]}
    return segmentation_gallery(images, masks, predictions, NAMES, file, **options)


def pixels(axis) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def test_a_row_for_images_masks_and_each_prediction(tmp_path):
    figure = draw(tmp_path / "gallery.png", title="SEA at 4/255")
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["image", "mask", "before, clean", "before, attacked"]
    assert np.allclose(pixels(figure.axes[0]), 0.25) and np.allclose(pixels(figure.axes[1]), 0.5)
    assert [pixels(axis).shape for axis in figure.axes[:2]] == [(2, 2, 3), (2, 3, 3)]  # of any sizes
    assert figure.get_suptitle() == "SEA at 4/255" and is_drawn(tmp_path / "gallery.png")


def test_a_class_has_one_colour_everywhere_and_ignored_pixels_are_grey(tmp_path):
    figure = draw(tmp_path / "gallery.png")
    mask, other, clean, attacked = (pixels(figure.axes[number]) for number in (2, 3, 4, 7))
    assert np.array_equal(mask, clean)
    assert np.array_equal(mask[0, 0], other[1, 0]) and np.array_equal(mask[0, 1], attacked[1, 0])
    assert np.ptp(mask[1, 1]) == 0 and np.ptp(mask[0, 1]) > 0.1

    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [*NAMES[:3], "a class whose nam…"]
    colours = [patch.get_facecolor()[:3] for patch in legend.get_patches()]
    assert np.allclose(colours[0], mask[0, 0]) and np.allclose(colours[1], mask[0, 1])
    assert all(not np.allclose(a, b) for n, a in enumerate(colours) for b in colours[:n])


def test_colours_of_many_classes_differ():
    from hf_pmgaft.plots.segmentation import class_colour

    colours = np.array([class_colour(number) for number in range(40)])
    distances = np.abs(colours[:, None] - colours[None]).max(-1) + np.eye(40)
    assert distances.min() > 0.03


def test_as_many_maps_as_images_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="2 images and 1 of 'attacked'"):
        draw(tmp_path / "gallery.png", {"attacked": MASKS[:1]})
