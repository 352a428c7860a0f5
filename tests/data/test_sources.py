"""The Hub, folders, parquet, CSV, shards and saved sets give the same rows; a missing split is named."""

from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from support.pictures import KINDS, write_images
from support.tiny import CLASS_NAMES

from hf_pmgaft.data import (
    ImageClassificationDataset,
    content_id,
    load_images,
    parse_set,
    training_examples,
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, eight) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    eight.to_parquet(folder / "x.parquet")
    eight.save_to_disk(folder / "saved")
    datasets.DatasetDict(train=eight, test=eight.select(range(4))).save_to_disk(folder / "dict")
    for split, rows in (("train", range(8)), ("test", range(4))):
        for i in rows:
            file = folder / "folder" / split / CLASS_NAMES[eight[i]["label"]] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            eight[i]["image"].save(file)
    (folder / "hub" / "one").mkdir(parents=True)
    eight.to_parquet(folder / "hub" / "one" / "train.parquet")
    eight.select(range(4)).to_parquet(folder / "hub" / "one" / "test.parquet")
    (folder / "hub" / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files:\n  - split: train\n    path: one/train.parquet\n"
        "  - split: test\n    path: one/test.parquet\n---\n"
    )
    return folder


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["x.parquet", "saved", "dict", "folder", "hub:one", "x.parquet@anything"])
def test_every_source_gives_the_same_examples(sources, processor, eight, name, streaming):
    loaded = load_images(*parse_set(f"{sources}/{name}", "train"), streaming=streaming)
    assert isinstance(loaded, datasets.IterableDataset) == streaming
    data = training_examples(loaded, processor)
    assert sorted(data.class_names) == sorted(CLASS_NAMES)
    rows = list(data) if streaming else [data[i] for i in range(len(data))]
    wanted = ImageClassificationDataset(eight, processor)
    expected = {(content_id(row["pixel_values"]), CLASS_NAMES[row["labels"]]) for row in wanted}
    assert {(content_id(row["pixel_values"]), data.class_names[row["labels"]]) for row in rows} == expected
    assert len(expected) == len(rows) == 8


@pytest.mark.parametrize("name", ["dict@test", "folder@test", "hub:one@test"])
def test_splits_are_found(sources, name):
    assert len(load_images(*parse_set(f"{sources}/{name}"))) == 4


@pytest.mark.parametrize("name", ["dict@validation", "folder@validation", "hub:one@validation"])
def test_a_missing_split_is_named_with_those_there_are(sources, name):
    with pytest.raises(ValueError, match="'?validation.*(test.*train|train.*test)"):
        load_images(*parse_set(f"{sources}/{name}"))


def test_splits_of_a_saved_set_are_joined(sources):
    assert len(load_images(f"{sources}/dict", split="train+test")) == 12
    with pytest.raises(ValueError, match="no split 'validation'"):
        load_images(f"{sources}/dict", split="train+validation")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("image,label\n")
    with pytest.raises(ValueError, match="a.txt is no parquet file"):
        load_images(str(tmp_path / "a.txt"))


def test_names_of_sets_are_taken_apart_unless_they_are_paths(tmp_path):
    assert parse_set("user/name:config@validation") == ("user/name", "config", "validation")
    assert parse_set("user/name") == ("user/name", None, "test")
    odd = tmp_path / "a@b:c"
    odd.mkdir()
    assert parse_set(str(odd), "train") == (str(odd), None, "train")


def test_a_revision_is_asked_of_the_hub(monkeypatch):
    asked = {}
    loaded = datasets.Dataset.from_dict({"label": [0]})
    builder = SimpleNamespace(
        name="parquet",
        config=SimpleNamespace(data_files={"test": []}),
        download_and_prepare=lambda: None,
        as_dataset=lambda split: loaded,
    )
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *names, **options: asked.update(options) or builder)
    assert load_images("user/name", split="test", revision="refs/convert/parquet") is loaded
    assert asked == {"revision": "refs/convert/parquet", "data_files": None}


def test_class_names_of_a_csv_file_are_its_texts(processor, tmp_path):
    data = training_examples(load_images(write_images("csv", tmp_path, [KINDS["grey"][0]] * 4)), processor)
    assert data.class_names == sorted(CLASS_NAMES)


def test_a_file_that_a_csv_names_and_is_not_there_is_named_by_its_row(processor, tmp_path):
    folder = tmp_path / ("a folder with a long name " * 4)  # of which both ends are shown
    folder.mkdir()
    (folder / "images.csv").write_text("image,label\nnone.png,cat\nother.png,dog\n")
    data = training_examples(load_images(str(folder / "images.csv")), processor)
    with pytest.raises(ValueError, match=r"row 1.*no file '/.*other\.png'"):
        data[1]
