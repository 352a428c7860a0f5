"""One row becomes pixels, a label and captions; rows that cannot be used are named, one by one or all at once."""

import re

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import write_images
from support.sets import replace
from support.tiny import CLASS_NAMES, SIZE, encoded, make_images, make_processor

from hf_pmgaft.data import (
    Collator,
    ImageClassificationDataset,
    ImageRows,
    LabelledImages,
    ProcessedImages,
    StreamingImages,
    WithSampleId,
    ZeroShotDataset,
    load_images,
    training_examples,
)


def test_columns_of_paths_bytes_and_arrays_hold_images_too(eight, processor, tmp_path):
    picture = eight[0]["image"]
    picture.save(tmp_path / "a.png")
    wanted = ImageClassificationDataset(eight, processor)[0]["pixel_values"]
    for value in (str(tmp_path / "a.png"), encoded(picture), np.asarray(picture), picture):
        data = ImageClassificationDataset([{"image": value, "label": 0}], processor, CLASS_NAMES)
        torch.testing.assert_close(data[0]["pixel_values"], wanted, msg=str(type(value)))


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_formats_and_transforms_are_followed(eight, processor, kind):
    wanted = ImageClassificationDataset(eight, processor)[5]
    assert torch.equal(
        ImageClassificationDataset(eight.with_format(kind), processor)[5]["pixel_values"], wanted["pixel_values"]
    )

    def make(batch):
        pixels = [processor(images=image, return_tensors="pt")["pixel_values"][0] for image in batch["image"]]
        return {"pixel_values": pixels, "labels": batch["label"]}

    made = training_examples(eight.with_transform(make), processor, CLASS_NAMES)
    assert isinstance(made, ProcessedImages)
    assert torch.equal(made[5]["pixel_values"], wanted["pixel_values"]) and made[5]["sample_id"] == 5

    def mirror(batch):
        return {"image": [image.transpose(Image.FLIP_LEFT_RIGHT) for image in batch["image"]], "label": batch["label"]}

    mirrored = training_examples(eight.with_transform(mirror), processor, CLASS_NAMES)[5]["pixel_values"]
    torch.testing.assert_close(mirrored, wanted["pixel_values"].flip(-1))


class OtherProcessor:
    """A processor that returns what others return: arrays (PIL processors), tensors (torchvision), lists of them."""

    def __init__(self, convert):
        self.image_processor, self.convert = make_processor().image_processor, convert

    def __call__(self, **options):
        return {"pixel_values": self.convert(self.image_processor(**{**options, "return_tensors": "np"}))}


@pytest.mark.parametrize(
    "convert",
    [
        lambda out: out["pixel_values"],
        lambda out: list(out["pixel_values"]),
        lambda out: torch.from_numpy(out["pixel_values"]),
        lambda out: list(torch.from_numpy(out["pixel_values"])),
    ],
    ids=["array", "arrays", "tensor", "tensors"],
)
def test_processors_may_return_arrays_or_tensors(eight, processor, convert):
    wanted = ImageClassificationDataset(eight, processor)[0]["pixel_values"]
    data = ImageClassificationDataset(eight, processor)
    data.processor = other = OtherProcessor(convert)
    assert torch.equal(data[0]["pixel_values"], wanted)
    batch = Collator(other, 4)([data[0], data[1]])
    assert batch["pixel_values"].shape == (2, 3, SIZE, SIZE) and batch["pixel_values"].dtype == torch.float32


# ---- What cannot be read ----


def broken(eight, processor) -> datasets.Dataset:
    good = encoded(eight[0]["image"])
    data = replace(eight, 2, eight.features, image={"bytes": b"no image", "path": None})
    data = replace(data, 5, eight.features, image={"bytes": good[: len(good) // 2], "path": None})
    return replace(data, 6, eight.features, image={"bytes": None, "path": "/nowhere.png"})


@pytest.mark.parametrize("row", [2, 5, 6])
def test_an_undecodable_image_is_named_by_its_row_when_reached(eight, processor, row):
    data = broken(eight, processor)
    message = f"The image in row {row}.*column 'image', cannot be read .*--check_data lists"
    with pytest.raises(ValueError, match=message):
        ImageClassificationDataset(data, processor)[row]
    with pytest.raises(ValueError, match=message):
        ZeroShotDataset(data, processor)[row]
    if row == 2:
        with pytest.raises(ValueError, match="image in row 2 of the stream"):
            list(StreamingImages(data.to_iterable_dataset(), processor))


def test_check_lists_every_broken_row(eight, processor):
    rows = [{"image": np.asarray(row["image"]).astype(np.float32), "label": row["label"]} for row in eight]
    rows[4]["image"][3, 3] = np.nan
    rows[7]["image"] = Image.fromarray(np.full((20, 20), 30000, np.int32))
    for data, wanted in (
        (ImageClassificationDataset(broken(eight, processor), processor), [2, 5, 6]),
        (StreamingImages(broken(eight, processor).to_iterable_dataset(), processor), [2, 5, 6]),
        (ZeroShotDataset(broken(eight, processor), processor), [2, 5, 6]),
        (ImageClassificationDataset(rows, processor, CLASS_NAMES), [4, 7]),
    ):
        with pytest.raises(ValueError, match=f"^{len(wanted)} of the rows cannot be used") as error:
            data.check()
        assert [int(row) for row in re.findall(r"image in row (\d)", str(error.value))] == wanted
    ImageClassificationDataset(eight, processor).check()


@pytest.mark.parametrize("source", ["folder", "csv", "shard"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_truncated_image_is_named_by_its_row(processor, tmp_path, source, form):
    whole = encoded(make_images(1)[0]["image"].resize((64, 64)), format=form)
    name = write_images(source, tmp_path, [whole, whole, whole[: len(whole) // 2], whole], form.lower())
    names = None if source == "folder" else CLASS_NAMES
    data = training_examples(load_images(name), processor, names)
    row = 0 if source == "folder" else 2  # the classes of a folder have the order of their names
    with pytest.raises(ValueError, match=f"image in row {row}, column .*cannot be read .*truncated"):
        data[row]
    with pytest.raises(ValueError, match=f"1 of the rows cannot be used:\n.*row {row}"):
        data.check()


def test_a_check_of_good_rows_is_silent(eight, processor, capfd):
    ImageClassificationDataset(eight, processor).check()
    assert capfd.readouterr() == ("", "")  # the bar comes with checks that take longer


def test_rows_without_labels_are_read_where_none_are_needed(eight, processor):
    rows = ImageRows(eight.remove_columns("label"), processor, normalize=False, needs_labels=False)
    assert rows.label_column is None and rows.class_names is None and rows.captions is None
    assert sorted(rows.example(rows.dataset[3], 3)) == ["pixel_values"]
    assert 0 <= rows.pixels(rows.dataset[3]["image"], 3).min() <= rows.pixels(rows.dataset[3]["image"], 3).max() <= 1
    with pytest.raises(ValueError, match="none of the usual label columns"):
        ImageRows(eight.remove_columns("label"), processor)


def test_former_names_are_those_of_today():
    assert LabelledImages is ImageRows and WithSampleId is ProcessedImages
