"""Folders of images and masks: what is a set of them, its splits, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.masked import draw_scene

from hf_pmgaft.data import load_images
from hf_pmgaft.data.mask_folders import class_file, has_mask_folders


def write(folder: Path, names, images: str = "images", masks: str = "masks") -> Path:
    """Pairs of an image and a mask, drawn in turn, with these names."""
    for row, name in enumerate(names):
        image, mask = draw_scene(row % 4)
        for part, picture, ending in ((images, image, "jpg"), (masks, mask, "png")):
            file = folder / part / f"{name}.{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
    return folder


@pytest.mark.parametrize("masks", ["masks", "annotations", "SegmentationClass"])
def test_images_and_masks_of_one_name_are_pairs_in_the_order_of_their_names(tmp_path, masks):
    rows = load_images(str(write(tmp_path, ["b", "a", "c"], masks=masks)), split="test")
    assert rows.column_names == ["image", "mask"] and len(rows) == 3
    assert [np.array(row["mask"]).max() for row in rows] == [2, 1, 3]


@pytest.mark.parametrize(("images", "masks"), [("images/val", "masks/val"), ("val/images", "val/annotations")])
def test_splits_are_folders_inside_or_around(tmp_path, images, masks):
    write(tmp_path, ["a", "b", "city/c"], images, masks)
    write(tmp_path, ["d"], images.replace("val", "train"), masks.replace("val", "train"))
    assert len(load_images(str(tmp_path), split="val")) == 3 and len(load_images(str(tmp_path), split="train")) == 1
    with pytest.raises(ValueError, match="has no split 'test'. It has: train, val"):
        load_images(str(tmp_path), split="test")


def test_splits_of_pascal_voc_are_lists_of_names(tmp_path):
    write(tmp_path, ["2007_1", "2007_2", "2007_3"], "JPEGImages", "SegmentationClass")
    Image.new("RGB", (4, 4)).save(tmp_path / "JPEGImages/2007_4.jpg")  # one without a mask, as most are there
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_3\n2007_1\n")
    rows = load_images(str(tmp_path), split="val")
    assert [np.array(row["mask"]).max() for row in rows] == [3, 1]
    with pytest.raises(ValueError, match="has no split 'test'"):
        load_images(str(tmp_path), split="test")


@pytest.mark.parametrize(("lost", "kind"), [("images/b.jpg", "image"), ("masks/b.png", "mask")])
def test_one_half_without_the_other_is_refused(tmp_path, lost, kind):
    write(tmp_path, ["a", "b"])
    (tmp_path / lost).unlink()
    with pytest.raises(ValueError, match=f"has no {kind} for 1 of 2 names, such as 'b'"):
        load_images(str(tmp_path), split="test")


def test_folders_of_other_kinds_are_none_of_masks(tmp_path):
    assert not has_mask_folders(tmp_path) and not has_mask_folders(tmp_path / "none")
    for folder in ("coco/images", "coco/annotations"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "coco/annotations/instances.json").write_text("{}")
    assert not has_mask_folders(tmp_path / "coco")
    for label in ("cat", "dog"):
        (tmp_path / "classes" / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "classes" / label / "1.png")
    assert not has_mask_folders(tmp_path / "classes")


def test_class_names_lie_beside(tmp_path):
    assert class_file(tmp_path) is None
    (tmp_path / "classes.json").write_text("[]")
    assert class_file(tmp_path).name == "classes.json"
