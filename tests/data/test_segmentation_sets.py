"""Sets with masks: labels of pixels, values that stand for them, sizes, and what is refused."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from support.borders import Refused, check, outcomes
from support.masked import FEATURES, NAMES, draw_scene, make_masked
from support.tiny import encoded

from hf_pmgaft import SegmentationDataset
from hf_pmgaft.data import IGNORED
from hf_pmgaft.data.segmentation_sets import label_of_values


@pytest.fixture(scope="module")
def masked() -> datasets.Dataset:
    return make_masked(8, sizes=((20, 24), (24, 20), (30, 30)))


def make_data(rows, processor, class_names=NAMES, **options) -> SegmentationDataset:
    return SegmentationDataset(rows, processor, class_names, name="scenes", **options)


def with_mask(row: int, mask, path: str | None = None) -> datasets.Dataset:
    """Four rows, one with another mask."""
    rows = make_masked(4).cast(datasets.Features({name: datasets.Image(decode=False) for name in FEATURES}))
    columns = {name: list(rows[name]) for name in rows.column_names}
    columns["mask"][row] = {"bytes": mask if mask is None else encoded(mask), "path": path}
    return datasets.Dataset.from_dict(columns, features=FEATURES)


# ---- Rows ----


def test_images_keep_their_sizes_and_labels_are_those_of_the_mask(masked, processor):
    data = make_data(masked, processor)
    assert [data.size_of(row) for row in range(3)] == [(20, 24), (24, 20), (30, 30)] and data.shape == (3, 20, 24)
    for row in range(3):
        image, mask = draw_scene(row, *data.size_of(row))
        example = data[row]
        assert example["sample_id"] == row and example["labels"].dtype == torch.int64
        torch.testing.assert_close(example["images"], torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)
        assert example["labels"].tolist() == np.array(mask).tolist()


def test_images_and_masks_are_resized_alike(masked, processor):
    data = make_data(masked, processor, short_edge=10)
    assert [data.size_of(row) for row in range(3)] == [(10, 12), (12, 10), (10, 10)]
    for row in range(3):
        image, mask = draw_scene(row, *masked[row]["image"].size[::-1])
        height, width = data.size_of(row)
        example = data[row]
        resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        torch.testing.assert_close(example["images"], torch.from_numpy(resized).permute(2, 0, 1) / 255)
        nearest = mask.resize((width, height), Image.Resampling.NEAREST)
        assert example["labels"].tolist() == np.array(nearest).tolist()


@pytest.mark.parametrize("edge", [7, 20, 33, 61])
def test_a_mask_that_grows_or_shrinks_goes_by_the_nearest_pixel(edge, processor):
    data = make_data(make_masked(1), processor, short_edge=edge)
    height, width = data.size_of(0)
    nearest = draw_scene(0)[1].resize((width, height), Image.Resampling.NEAREST)
    assert min(height, width) == edge and data[0]["labels"].tolist() == np.array(nearest).tolist()


def test_a_mask_may_be_ignored_altogether(processor):
    data = make_data(with_mask(0, Image.new("L", (24, 20), 255)), processor)
    assert (data[0]["labels"] == IGNORED).all() and (data[1]["labels"] != IGNORED).all()


def test_rows_of_lists_arrays_and_a_column_of_another_name_are_read(processor):
    image, mask = draw_scene(2)
    labels = np.array(mask)
    for value in (labels, labels.tolist(), torch.from_numpy(labels), mask, encoded(mask)):
        data = make_data([{"image": image, "figures": value}], processor, mask_column="figures")
        assert data[0]["labels"].tolist() == labels.tolist()
    table = datasets.Dataset.from_dict(
        {"image": [image], "label": [labels]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Array2D((20, 24), "uint8")}),
    )
    assert make_data(table, processor)[0]["labels"].tolist() == labels.tolist()


def test_a_photograph_held_on_its_side_has_the_size_that_is_read(processor):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (20, 24)), exif=exif, format="JPEG")
    data = make_data([{"image": content, "mask": draw_scene(0)[1]}], processor)
    assert data.size_of(0) == (20, 24) and data[0]["images"].shape == (3, 20, 24)


# ---- Classes ----


def test_classes_have_a_first_name_and_all_of_their_names(masked, processor):
    names = [["background"], "red disc, red circle", ["green disc"], "blue square", "yellow square"]
    data = make_data(masked, processor, names)
    assert data.class_names == ["background", "red disc", "green disc", "blue square", "yellow square"]
    assert data.synonyms[0] == ["background"] and data.synonyms[1] == ["red disc", "red circle"]
    assert data.background_threshold is None


def test_background_by_threshold_needs_no_name(masked, processor):
    for first in ("background", [], ["Background"]):
        data = make_data(masked, processor, [first, *NAMES[1:]], background_threshold=0.3)
        assert data.class_names[0] == "background" and data.synonyms[0] == [] and data.background_threshold == 0.3
    stuff = make_data(masked, processor, ["wall, floor", *NAMES[1:]], background_threshold=0.3)
    assert stuff.synonyms[0] == ["wall", "floor"] and stuff.class_names[0] == "wall"


def test_values_of_masks_stand_for_classes(processor):
    """0 and 255 for no class, 1 for the first: the way of ADE20K and PascalContext."""
    mask = np.zeros((20, 24), np.uint8)
    mask[:5] = 1
    mask[5:9] = 4
    mask[9] = 255
    rows = [{"image": draw_scene(0)[0], "mask": mask}]
    labels = make_data(rows, processor, NAMES[1:], reduce_zero_label=True)[0]["labels"]
    assert labels[0, 0] == 0 and labels[5, 0] == 3 and (labels[9:] == IGNORED).all()
    labels = make_data(rows, processor, NAMES[1:4], ignore_index=[0, 255], mask_values=[[1, 4], 2, 3])[0]["labels"]
    assert (labels[:9] == 0).all() and (labels[9:] == IGNORED).all()


VALUES = {
    "from 0": ({}, {0: 0, 1: 1, 255: IGNORED}),
    "nothing ignored": ({"ignore_index": None}, {0: 0, 1: 1}),
    "several ignored": ({"ignore_index": [7, -1]}, {0: 0, 1: 1, 7: IGNORED, -1: IGNORED}),
    "from 1": ({"reduce_zero_label": True}, {0: IGNORED, 1: 0, 2: 1, 255: IGNORED}),
    "named": ({"mask_values": [7, [8, 9]]}, {7: 0, 8: 1, 9: 1, 255: IGNORED}),
    "zero ignored twice": ({"reduce_zero_label": True, "ignore_index": 0}, {0: IGNORED, 1: 0, 2: 1}),
    "the value of a class ignored": (
        {"ignore_index": 1},
        Refused("1 of masks stands for class 1, 'sky', and for ign"),
    ),
    "one value of two classes": ({"mask_values": [3, 3]}, Refused("class 0, 'wall', and for class 1, 'sky'")),
    "fewer values than classes": ({"mask_values": [3]}, Refused("1 mask_values for 2 classes")),
    "two ways to say it": ({"mask_values": [1, 2], "reduce_zero_label": True}, Refused("both say what 0 is")),
    "a text": ({"ignore_index": "255"}, Refused("ignore_index with '255', which is no value of a mask")),
    "a colour": ({"mask_values": [(0, 0, 0.5), 1]}, Refused("mask_values with 0.5")),
}


@outcomes(VALUES)
def test_what_values_of_masks_stand_for(given, outcome):
    check(lambda: label_of_values(["wall", "sky"], **given), outcome)


# ---- What is refused ----


def test_the_first_ten_masks_tell_how_they_are_numbered(processor):
    masks = [np.full((20, 24), 1, np.uint8) for _ in range(11)]
    rows = [{"image": draw_scene(0)[0], "mask": mask} for mask in masks]
    masks[9][0, 0] = 3
    assert len(make_data(rows, processor, expected_values=[3, 4])) == 11
    masks[9][0, 0], masks[10][0, 0] = 1, 3
    with pytest.raises(ValueError, match=r"first masks of 'scenes' hold \[1\] and none of \[3, 4\]"):
        make_data(rows, processor, expected_values=[3, 4])


LATE = {
    "a mask of another size": (
        Image.new("L", (20, 24)),
        "row 2 of 'scenes', column 'mask', file 2.png, .*it is 20 x 24, but its",
    ),
    "a picture in colours": (
        Image.new("RGB", (24, 20)),
        "row 2 of 'scenes'.*file 2.png.*picture in colours .mode RGB",
    ),
    "a class too many": (
        Image.new("L", (24, 20), 5),
        "file 2.png, .*it holds .5., which stand for none of the 5 classes",
    ),
    "levels of grey": (Image.new("L", (24, 20), 128), "holds .128.*not levels of grey"),
    "none": (None, "row 2 of .scenes., column .mask., file 2.png, cannot be read"),
}


@pytest.mark.parametrize("mask, message", LATE.values(), ids=list(LATE))
def test_a_mask_that_cannot_be_used_is_named_by_row_and_file(mask, message, processor):
    data = make_data(with_mask(2, mask, "masks/2.png"), processor)
    data[1]
    for read in (lambda: data[2], data.check_masks, data.check):
        with pytest.raises(ValueError, match=message):
            read()


@pytest.mark.parametrize("mask, message", list(LATE.values())[:2], ids=list(LATE)[:2])
def test_sizes_and_colours_are_seen_in_headers(mask, message, processor):
    data = make_data(with_mask(2, mask, "masks/2.png"), processor)
    with pytest.raises(ValueError, match=message):
        data.size_of(2)


@pytest.mark.parametrize("mask, message", LATE.values(), ids=list(LATE))
def test_a_first_row_that_cannot_be_used_is_refused_at_once(mask, message, processor):
    with pytest.raises(ValueError, match=message):
        make_data(with_mask(2, mask, "masks/2.png"), processor, sample_ids=[2, 0])


ROWS = make_masked(2)
CASES = {
    "as it should be": ({}, 2),
    "no mask": ({"dataset": ROWS.remove_columns("mask")}, Refused("usual mask columns")),
    "another mask column": ({"mask_column": "masks"}, Refused("no mask column 'masks'")),
    "no image": ({"dataset": ROWS.remove_columns("image")}, Refused("usual image columns")),
    "no class names": ({"class_names": None}, Refused("no class_names for 'scenes', whose masks hold numbers")),
    "fewer names than classes": ({"class_names": NAMES[:2], "sample_ids": [1]}, Refused("it holds [2], which")),
    "one name": ({"class_names": ["disc"]}, Refused("a classifier needs at least 2")),
    "a class without a name": ({"class_names": [*NAMES[:-1], []]}, Refused("Classes [4] have no name")),
    "a background without a name": ({"class_names": [[], *NAMES[1:]]}, Refused("Classes [0] have no name")),
    "a name of two classes": (
        {"class_names": [*NAMES[:-1], "Red_disc"]},
        Refused("for class 1 and again for class 4"),
    ),
    "a name twice": ({"class_names": ["wall, wall", *NAMES[1:]]}, Refused("for class 0 and again for class 0")),
    "a number for a name": ({"class_names": [7, *NAMES[1:]]}, Refused("Class 0 is called 7, which is no name")),
    "ids for names": ({"class_names": [f"n0144353{i}" for i in range(5)]}, Refused("ids of WordNet")),
    "a set of names": ({"class_names": set(NAMES)}, Refused("says nothing of the order")),
    "no template": ({"prompt_templates": "a photo"}, Refused("{}")),
    "a threshold of one": ({"background_threshold": 1}, Refused("is no probability")),
    "a threshold in words": ({"background_threshold": "0.1"}, Refused("is no probability")),
    "no edge": ({"short_edge": 0}, Refused("short_edge=0, which is no count")),
    "a stream": ({"dataset": ROWS.to_iterable_dataset()}, Refused("is a stream")),
    "no rows": ({"dataset": ROWS.select([])}, Refused("has no rows")),
    "rows outside": ({"sample_ids": [2]}, Refused("the rows 0 to 1")),
}


@outcomes(CASES)
def test_what_makes_a_set(given, outcome, processor):
    options = {"dataset": ROWS, "class_names": NAMES, "name": "scenes", **given}
    check(lambda: len(SegmentationDataset(options.pop("dataset"), processor, **options)), outcome)
