"""What says how pixels are made: means, standard deviations and the scale, from flags and in processors."""

import copy

import numpy as np
import pytest
import torch
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images, make_processor

from hf_pmgaft.cli.train import parse
from hf_pmgaft.data import ImageClassificationDataset, ZeroShotDataset, training_examples
from hf_pmgaft.models import pixel_statistics

HALF, ZERO, ONE = [0.5] * 3, [0.0] * 3, [1.0] * 3

FLAGS = {
    "three means": ("--image_mean 0.5 0.5 0.5", (HALF, None)),
    "both": ("--image_mean 0 0 0 --image_std 1 1 1", (ZERO, ONE)),
    "neither": ("", (None, None)),
    "one mean": ("--image_mean 0.5", Refused("image_mean=[0.5] is not one number for each of red, green and blue")),
    "four means": ("--image_mean 0.5 0.5 0.5 0.5", Refused("is not one number for each of red, green and blue")),
    "levels of 8 bits": ("--image_mean 123.675 116.28 103.53", Refused("is not of images in [0,1]. Pass three")),
    "a deviation of 8 bits": ("--image_std 58.4 57.1 57.4", Refused("image_std=[58.4, 57.1, 57.4] is not of images")),
    "a negative mean": ("--image_mean -0.5 0 0", Refused("image_mean=[-0.5, 0.0, 0.0] is not of images in [0,1]")),
    "no deviation": ("--image_std 0.2 0 0.2", Refused("image_std=[0.2, 0.0, 0.2] is not of images in [0,1]")),
    "a negative deviation": ("--image_std 0.2 -0.2 0.2", Refused("Pass three numbers above 0, up to 1")),
    "NaN": ("--image_mean nan 0 0", Refused("image_mean=[nan, 0.0, 0.0] is not of images in [0,1]")),
    "a deviation that is NaN": ("--image_std 0.2 nan 0.2", Refused("is not of images in [0,1]")),
    "infinity": ("--image_std inf 1 1", Refused("is not of images in [0,1]")),
    "commas": ("--image_mean 0.5,0.5,0.5", Refused("invalid float value")),
    "a word": ("--image_mean clip", Refused("invalid float value")),
    "nothing": ("--image_mean --image_std 1 1 1", Refused("expected at least one argument")),
}


@outcomes(FLAGS)
def test_statistics_of_a_command_line(given, outcome, tmp_path):
    def statistics():
        model_args, _, _ = parse(["--output_dir", str(tmp_path), *given.split()])
        return model_args.image_mean, model_args.image_std

    check(statistics, outcome)


PROCESSORS = {
    "CLIP's own": ({}, None),
    "tuples": ({"image_mean": tuple(HALF), "image_std": tuple(HALF)}, (HALF, HALF)),
    "one number for all channels": ({"image_mean": 0.5, "image_std": 0.5}, (HALF, HALF)),
    "no normalisation": ({"do_normalize": False}, (ZERO, ONE)),
    "no normalisation, and means of another scale": (
        {"do_normalize": False, "image_mean": [123.7, 116.3, 103.5]},
        (ZERO, ONE),
    ),
    "means of 8 bits": ({"image_mean": [123.7, 116.3, 103.5]}, Refused("image_mean=[123.7, 116.3, 103.5] is not of")),
    "deviations of 8 bits": ({"image_std": [58.4, 57.1, 57.4]}, Refused("what is counted in levels of 8 bits")),
    "a deviation of 0": ({"image_std": [0.0, 0.2, 0.2]}, Refused("image_std=[0.0, 0.2, 0.2] is not of images")),
    "grey": ({"image_mean": [0.5], "image_std": [0.5]}, Refused("image_mean=[0.5] is not one number for each")),
    "no means": ({"image_mean": None}, Refused("image_mean=None is not one number for each")),
    "no scaling": ({"do_rescale": False}, Refused("has do_rescale=False and rescale_factor=0.0039")),
    "a factor of 1": ({"rescale_factor": 1}, Refused("rescale_factor=1, so its pixels are not in [0,1]")),
    "a factor to -1..1": ({"rescale_factor": 1 / 127.5}, Refused("Set do_rescale=True and rescale_factor=1/255")),
    "a factor that is rounded": ({"rescale_factor": 0.00392157}, None),
}


@outcomes(PROCESSORS)
def test_statistics_of_a_processor(given, outcome):
    processor = make_processor()
    wanted = pixel_statistics(processor) if outcome is None else outcome
    vars(processor.image_processor).update(given)
    check(lambda: pixel_statistics(processor), wanted)


@pytest.mark.parametrize("options", [{"do_rescale": False}, {"rescale_factor": 1.0}])
def test_sets_refuse_a_processor_of_another_scale(options):
    processor = copy.deepcopy(make_processor())
    vars(processor.image_processor).update(options)
    for kind in (ImageClassificationDataset, ZeroShotDataset, training_examples):
        with pytest.raises(ValueError, match="pixels are not in .0,1., where radii and statistics are counted"):
            kind(make_images(4), processor)


def test_pixels_without_normalisation_are_trained_as_they_are():
    processor = make_processor()
    processor.image_processor.do_normalize = False
    rows = [{"image": np.full((16, 16, 3), 51, np.uint8), "label": 0}]
    pixels = ImageClassificationDataset(rows, processor, CLASS_NAMES)[0]["pixel_values"]
    torch.testing.assert_close(pixels, torch.full((3, 16, 16), 0.2))
