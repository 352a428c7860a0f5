"""What a user types as a data set, and what lies there."""

import tarfile

import pytest
from support.borders import Refused, check, outcomes
from support.hub_server import READER
from support.tiny import make_images

from hf_pmgaft.data import load_images, parse_set

TEXTS = {
    "a name": ("user/set", ("user/set", None, "test")),
    "a configuration": ("user/set:one", ("user/set", "one", "test")),
    "a split": ("user/set@train", ("user/set", None, "train")),
    "both": ("user/set:one@train", ("user/set", "one", "train")),
    "a slice": ("user/set@train[:10%]", ("user/set", None, "train[:10%]")),
    "two splits": ("user/set@train+test", ("user/set", None, "train+test")),
    "spaces around it": (" user/set @ train ", ("user/set", None, "train")),
    "a folder with @ and : in it": ("a@b:c", ("a@b:c", None, "test")),
    "a folder with @ in it, and a split": ("a@b:c@train", ("a@b:c", None, "train")),
    "such a folder, a configuration and a split": ("a@b:c:one@train", ("a@b:c", "one", "train")),
    "no split after @": ("user/set@", Refused("names no split after @")),
    "no configuration after :": ("user/set:@train", Refused("names no configuration after :")),
    "two @": ("user/set@train@test", Refused("has two @")),
    "two :": ("user/set:one:two", Refused("has two :")),
    "no name": (":one@train", Refused("names no data set")),
    "nothing": ("", Refused("names no data set")),
    "a path of Windows": ("C:\\data\\set", Refused("is a path of Windows that is not here")),
}


@outcomes(TEXTS)
def test_texts_that_name_a_set(given, outcome, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a@b:c").mkdir()
    check(lambda: parse_set(given), outcome)


PLACES = {
    "a parquet file": ("set.parquet", 8),
    "a parquet file that is none": ("text.parquet", Refused("text.parquet', split 'train' cannot be read")),
    "an empty file": ("empty.parquet", Refused("empty.parquet', split 'train' cannot be read")),
    "a file of another kind": ("notes.txt", Refused("is no parquet file, shard or CSV file")),
    "a file without an ending": ("notes", Refused("is no parquet file, shard or CSV file")),
    "a file that is not there": ("gone.parquet", Refused("is not here")),
    "a folder that is not there": ("./gone/", Refused("is no file or folder here")),
    "a folder without images": ("texts", Refused("holds no images, parquet, CSV or .tar files")),
    "an empty folder": ("nothing", Refused("holds no images, parquet, CSV or .tar files")),
    "a shard without rows": ("empty.tar", Refused("empty.tar', split 'train' has no rows")),
    "a shard that is none": ("text.tar", Refused("text.tar', split 'train' cannot be read")),
    "a folder with a broken table": ("broken", Refused("broken', split 'train' cannot be read")),
    "two slashes": ("a/b/c", Refused("is no file or folder here")),
    "an id with a space": ("user/my set", Refused("no id of a set on the Hub")),
    "an address": ("https://huggingface.co/datasets/user/set", Refused("is no file or folder here")),
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(8).to_parquet("set.parquet")
    for name in ("text.parquet", "text.tar", "notes.txt", "notes", "texts/a.md", "broken/train.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no table")
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    with tarfile.open("empty.tar", "w"):
        pass


@outcomes(PLACES)
def test_places_of_sets(given, outcome, places, hub):
    check(lambda: len(load_images(given)), outcome)


HUB = {
    "a set": (("user/shapes", None, "train"), 8),
    "a wrong name": (("user/shape", None, "train"), Refused("'user/shape' is no file or folder here, and on the Hub")),
    "a wrong split": (("user/shapes", None, "trian"), Refused("user/shapes has no split 'trian'. It has: ['train']")),
    "a split too many": (("user/shapes", None, "train+test"), Refused("no split 'test'")),
    "an empty split": (("user/shapes", None, ""), Refused("no split ''")),
    "a slice that is none": (("user/shapes", None, "train[:x]"), Refused("split 'train[:x]' cannot be read")),
    "a wrong configuration": (("user/shapes", "two", "train"), Refused("configuration 'two' has no such")),
    "configurations, and none named": (("user/several", None, "train"), Refused("Write user/several:CONFIG")),
    "one of them": (("user/several", "a", "train"), 8),
    "a script": (("user/script", None, "train"), Refused("'user/script' is a loading script")),
    "no files of a set": (("user/empty", None, "train"), Refused("'user/empty' holds no images")),
    "a gated set": (("user/gated", None, "train"), Refused("'user/gated' is gated on the Hub. Accept its terms")),
}


@outcomes(HUB)
def test_sets_on_the_hub(given, outcome, hub, tmp_path, monkeypatch):
    make_images(8).to_parquet(tmp_path / "set.parquet")
    table = (tmp_path / "set.parquet").read_bytes()
    card = "---\nconfigs:\n- config_name: a\n  data_files: a.parquet\n- config_name: b\n  data_files: b.parquet\n---\n"
    hub.put("datasets/user/shapes", {"data/train-00000-of-00001.parquet": table})
    hub.put("datasets/user/several", {"a.parquet": table, "b.parquet": table, "README.md": card.encode()})
    hub.put("datasets/user/script", {"script.py": b"import datasets"})
    hub.put("datasets/user/empty", {"README.md": b"nothing yet"})
    hub.put("datasets/user/gated", {"train.parquet": table}).gated = "auto"
    monkeypatch.setenv("HF_TOKEN", READER)
    check(lambda: len(load_images(*given)), outcome)
