"""Columns of texts become captions of images, from every source; what holds no text is refused."""

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from support.captions import CAPTIONS, captioned, texts_of
from support.paths import EMOJI
from support.tiny import CLASS_NAMES, SIZE, make_images, make_processor
from transformers import AutoProcessor

from hf_pmgaft.data import (
    Collator,
    ImageClassificationDataset,
    StreamingImages,
    load_images,
    training_examples,
)
from hf_pmgaft.data.captions import CAPTION_COLUMNS


def shard(file: Path, rows: range, write) -> None:
    """A webdataset shard; `write(i)` gives the files beside the image of row i, by extension."""
    images = make_images(rows.stop)
    with tarfile.open(file, "w") as tar:
        for i in rows:
            picture = io.BytesIO()
            images[i]["image"].save(picture, "PNG")
            for extension, content in {"png": picture.getvalue(), **write(i)}.items():
                entry = tarfile.TarInfo(f"{i:05d}.{extension}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    captioned().to_parquet(folder / "x.parquet")
    captioned().save_to_disk(folder / "saved")

    def files(i):
        record = {"caption": CAPTIONS[i][0], "captions": CAPTIONS[i]}
        return {"txt": CAPTIONS[i][0].encode(), "json": json.dumps(record).encode(), "cls": str(i % 4).encode()}

    for name, rows in (("00000", range(3)), ("00001", range(3, 6))):
        (folder / "shards").mkdir(exist_ok=True)
        shard(folder / "shards" / f"{name}.tar", rows, files)
        datasets.Dataset.from_dict({"url": ["x"]}).to_parquet(folder / "shards" / f"{name}.parquet")
        split = {"00000": "train", "00001": "test"}[name]
        (folder / "split" / split).mkdir(parents=True)
        shard(folder / "split" / split / f"{name}.tar", rows, files)
    return folder


# ---- Sources ----


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "column"),
    [("x.parquet", "caption"), ("x.parquet", "auto"), ("saved", "auto"), ("shards", "json.captions")],
)
def test_every_source_gives_the_same_captions(sources, processor, name, column, streaming):
    loaded = load_images(str(sources / name), streaming=streaming)
    data = training_examples(loaded, processor, caption_column=column)
    assert isinstance(data, StreamingImages if streaming else ImageClassificationDataset)
    rows = list(data) if streaming else [data[i] for i in range(len(data))]
    assert [texts_of(processor, row) for row in rows] == CAPTIONS
    wanted = ImageClassificationDataset(make_images(6), processor)
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(rows, wanted, strict=True))
    assert data.class_names is None
    data.check()


@pytest.mark.parametrize("column", ["txt", "auto", "json.caption"])
def test_a_shard_has_a_caption_and_perhaps_a_label_for_each_image(sources, processor, column):
    data = training_examples(load_images(str(sources / "shards" / "00001.tar")), processor, caption_column=column)
    assert [texts_of(processor, row) for row in data] == [captions[:1] for captions in CAPTIONS[3:]]
    assert [row["labels"] for row in data] == [3, 0, 1] and data.class_names is None


def test_shards_in_folders_of_splits_keep_apart(sources, processor):
    for split, captions in (("train", CAPTIONS[:3]), ("test", CAPTIONS[3:])):
        data = training_examples(load_images(str(sources / "split"), split=split), processor, caption_column="txt")
        assert [texts_of(processor, row) for row in data] == [texts[:1] for texts in captions]


def test_names_and_tags_of_the_emoji_are_their_captions():
    processor = AutoProcessor.from_pretrained(EMOJI / "model")
    emoji = load_images(str(EMOJI / "data"), "finetune")
    data = training_examples(emoji, processor, caption_column="label,tags")
    assert texts_of(processor, data[0]) == ["monkey face", "animal", "banana", "face", "monkey"]
    assert len(data.class_names) == 160 and data[0]["labels"] == 0
    batch = Collator(processor, 160)([data[i] for i in range(0, 700, 50)])
    assert batch["num_captions"].tolist() == [1 + len(emoji[i]["tags"]) for i in range(0, 700, 50)]


# ---- Captions of a row ----


def test_captions_are_stripped_and_the_empty_ones_dropped(processor):
    data = captioned([["  the\n red\t disc ", "", None, " "]] * 2)
    assert texts_of(processor, training_examples(data, processor, caption_column="caption")[1]) == ["the red disc"]


def test_several_columns_are_read_in_their_order(processor):
    data = captioned(["red disc"] * 4, "b").add_column("a", [["blue", "square"]] * 4)
    for given in ("a,b", ["a", "b"], ["a, b"]):
        row = training_examples(data, processor, caption_column=given)[0]
        assert texts_of(processor, row) == ["blue", "square", "red disc"]
    odd = captioned(["red disc"] * 4, "a,b")
    assert texts_of(processor, training_examples(odd, processor, caption_column="a,b")[0]) == ["red disc"]


def test_fields_of_records_and_of_lists_of_records_are_captions(processor):
    records = [{"raw": "red disc", "id": 1}, {"raw": "blue square", "id": 2}]
    rows = [{"image": make_images(1)[0]["image"], "meta.json": {"s": records}}] * 2
    for data in (rows, captioned([records] * 2, "s")):
        name = "meta.json.s.raw" if data is rows else "s.raw"
        row = training_examples(data, processor, caption_column=name)[0]
        assert texts_of(processor, row) == ["red disc", "blue square"]


@pytest.mark.parametrize("column", CAPTION_COLUMNS)
def test_usual_names_are_found(processor, column):
    data = training_examples(captioned(["red disc"] * 4, column), processor, caption_column="auto")
    assert texts_of(processor, data[0]) == ["red disc"]


def test_long_captions_are_cut_and_end_in_the_end_token(processor):
    row = training_examples(captioned(["the " * 99, "red"]), processor, caption_column="caption")[0]
    assert row["input_ids"].shape == (1, 16) and row["input_ids"][0, -1] == processor.tokenizer.eos_token_id


def test_a_label_column_of_names_gives_classes_and_one_of_numbers_labels(processor):
    named = training_examples(captioned(labels=True), processor, caption_column="caption")
    assert named.class_names == CLASS_NAMES and [row["labels"] for row in named] == [0, 1, 2, 3, 0, 1]
    numbers = captioned(labels=True).cast_column("label", datasets.Value("int64"))
    data = training_examples(numbers, processor, caption_column="caption")
    assert data.class_names is None and [row["labels"] for row in data] == [0, 1, 2, 3, 0, 1]
    texts = captioned(["red disc"] * 3 + ["blue square"] * 3, "label" + "s")
    assert training_examples(texts, processor, caption_column="labels").label_column is None


# ---- What cannot work ----


@pytest.mark.parametrize("empty", [[], [""], ["  ", None]])
def test_an_image_without_caption_is_named_by_its_row(processor, empty):
    broken = captioned([*CAPTIONS[:2], empty, *CAPTIONS[3:5], empty])
    data = training_examples(broken, processor, caption_column="caption")
    message = "Row 2 has no caption: there is no text in 'caption'. Write one or remove the row; --check_data lists"
    with pytest.raises(ValueError, match=message):
        data[2]
    with pytest.raises(ValueError, match="(?s)^2 of the rows cannot be used.*Row 2 has.*Row 5 has"):
        data.check()
    with pytest.raises(ValueError, match="Row 2 of the stream has no caption"):
        list(training_examples(broken.to_iterable_dataset(), processor, caption_column="caption"))


def test_an_empty_column_beside_a_full_one_is_no_fault(processor):
    data = captioned().add_column("alt", [None] * 6)
    assert len(training_examples(data, processor, caption_column="alt,caption")[2]["input_ids"]) == 3
    with pytest.raises(ValueError, match="Row 2 has no caption: there is no text in 'alt'"):
        training_examples(data, processor, caption_column="alt")[2]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("title", r"no caption column 'title'; it has \['image', 'caption', 'record', 'number'\]. Pass one of them"),
        ("caption,title", "no caption column 'title'"),
        ("record.c", r"no 'c' in 'record', which has \['a', 'b'\]. Pass the right one"),
        ("record", "caption_column='record'.*no text. Pass a column of texts .* or a field such as 'record.a'"),
        ("number", "caption_column='number', but that column is Value.*int64.*no text"),
        ("image", "caption_column='image', but that column is Image"),
    ],
)
def test_columns_without_texts_are_refused_before_training(processor, column, message):
    data = captioned().add_column("record", [{"a": "x", "b": "y"}] * 6).add_column("number", [1] * 6)
    with pytest.raises(ValueError, match=message):
        training_examples(data, processor, caption_column=column)
    with pytest.raises(ValueError, match=message):
        training_examples(data.to_iterable_dataset(), processor, caption_column=column)


def test_a_set_without_any_usual_name_is_refused(processor):
    with pytest.raises(ValueError, match=r"none of the usual caption columns \['caption'.*it has \['image', 'x'\]"):
        training_examples(captioned(column="x"), processor, caption_column="auto")


@pytest.mark.parametrize("cell", [7, {"a": "x"}, ["red", 7], np.ones(2)])
def test_cells_without_texts_are_named_by_their_row(processor, cell):
    rows = [{"image": make_images(1)[0]["image"], "caption": value} for value in ("red disc", cell)]
    data = training_examples(rows, processor, caption_column="caption")
    with pytest.raises(
        ValueError, match="Row 1 has .* in the caption column 'caption', which is .* and no text. Pass"
    ):
        data[1]


def test_a_processor_that_cannot_read_captions_is_refused(processor):
    with pytest.raises(ValueError, match="caption_column with a CLIPImageProcessor.*no tokenizer.*CLIPProcessor"):
        training_examples(captioned(), processor.image_processor, caption_column="caption")
    endless = make_processor()
    endless.tokenizer.model_max_length = int(1e30)
    with pytest.raises(ValueError, match="names no model_max_length.*CLIP: 77"):
        training_examples(captioned(), endless, caption_column="caption")


def test_rows_that_are_made_without_their_captions_are_refused(processor):
    pixels = [{"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": 0, "caption": "red disc"}] * 2
    with pytest.raises(ValueError, match="caption_column='caption'.*pixel_values and no input_ids.*Pass images, or"):
        training_examples(pixels, processor, CLASS_NAMES, caption_column="caption")
    made = training_examples(captioned(labels=True), processor)
    with pytest.raises(ValueError, match="ImageClassificationDataset that was made without captions. Pass caption_co"):
        training_examples(made, processor, caption_column="caption")


def test_labels_that_stand_for_nothing_are_named_by_their_row(processor):
    data = captioned(labels=True).cast_column("label", datasets.Value("int64"))
    rows = [{**row, "label": "red" if i == 3 else row["label"]} for i, row in enumerate(data)]
    with pytest.raises(ValueError, match="Row 3 has the label 'red', which is no number.*`class_names`"):
        training_examples(rows, processor, caption_column="caption")[3]
