"""What a split needs is read and no more: its own files, and the images of the rows that are evaluated."""

import io
import os
import tarfile
from zipfile import ZipFile

import datasets
import pytest
from datasets import Image
from support.hub_sets import put_sets
from support.tiny import make_images

from hf_pmgaft.data import load_for_some_rows, load_images, split_size, with_images
from hf_pmgaft.data.parquet_rows import rows_without_images
from hf_pmgaft.suites import load_set, load_suite, loading

ROWS_PER_GROUP = 5


def stored(data) -> list[dict]:
    """Rows with images as files hold them."""
    for column, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(column, Image(decode=False))
    return data.to_list()


def shards(tmp_path, split: str, images, count: int = 2) -> dict[str, bytes]:
    """The parquet files of a split, by their paths in a repository."""
    files = {}
    for number in range(count):
        path = tmp_path / f"{split}-{number}.parquet"
        images.shard(count, number, contiguous=True).to_parquet(path, batch_size=ROWS_PER_GROUP)
        files[f"data/{split}-{number:05}-of-{count:05}.parquet"] = path.read_bytes()
    return files


@pytest.fixture
def repo(hub, tmp_path):
    images = make_images(60)
    train, test = images.select(range(20)), images.select(range(20, 60))
    return hub.put("datasets/user/shapes", {**shards(tmp_path, "train", train), **shards(tmp_path, "test", test)})


def fetched(hub) -> set[str]:
    """Files whose content was read."""
    return {path for path in hub.fetched("datasets/user/shapes") if path.endswith((".parquet", ".png", ".csv"))}


TEST_FILES = {"data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"}


def test_files_of_other_splits_are_not_downloaded(hub, repo, tmp_path):
    data = load_images("user/shapes", split="test")
    assert fetched(hub) == TEST_FILES
    whole = datasets.load_dataset("user/shapes", split="test", cache_dir=tmp_path / "other")
    assert data.features == whole.features and stored(data) == stored(whole)


def test_a_broken_file_of_another_split_does_no_harm(hub, repo):
    repo.files["data/train-00000-of-00002.parquet"] = b"no parquet"
    assert len(load_images("user/shapes", split="test")) == 40
    with pytest.raises(ValueError, match="'user/shapes', split 'train' cannot be read .*[Pp]arquet"):
        load_images("user/shapes", split="train")


@pytest.mark.parametrize(("split", "rows"), [("train+test", 60), ("test[:10%]", 4), ("test[5:]+train[:2]", 37)])
def test_joined_splits_and_slices_are_those_of_datasets(hub, repo, tmp_path, split, rows):
    whole = datasets.load_dataset("user/shapes", split=split, cache_dir=tmp_path / "other")
    some = with_images(load_for_some_rows("user/shapes", split=split), [3, 0])
    assert [row["image"] is None for row in stored(some)[:4]] == [False, True, True, False]
    assert stored(some.select([3, 0])) == stored(whole.select([3, 0])) and some.features == whole.features
    data = load_images("user/shapes", split=split)
    assert len(data) == len(some) == rows and stored(data) == stored(whole)


def test_files_that_hold_images_alone_are_read_by_rows_too(tmp_path):
    images = make_images(6).select_columns(["image"])
    images.to_parquet(tmp_path / "test.parquet")
    some = with_images(rows_without_images({"test": [str(tmp_path / "test.parquet")]}, "test"), [4, 1])
    assert [row["image"] is None for row in stored(some)] == [True, False, True, True, False, True]
    assert stored(some.select([4, 1])) == stored(images.select([4, 1]))


def test_a_split_is_found_offline_once_it_was_loaded(hub, repo, monkeypatch):
    online = load_images("user/shapes", split="test")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert stored(load_images("user/shapes", split="test")) == stored(online)
    assert stored(load_images("user/shapes", split="test[:3]")) == stored(online)[:3]
    with pytest.raises(ConnectionError, match="'user/shapes'.* was not reached on the Hub"):
        load_images("user/shapes", split="train")


@pytest.mark.parametrize("load", [datasets.load_dataset, load_images])
def test_the_size_of_what_is_in_the_cache_is_its_rows_alone(hub, repo, monkeypatch, load):
    load("user/shapes", split="test")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert split_size("user/shapes", split="test") == (0, 40)
    assert split_size("user/shapes", split="test[:25%]") == (0, 10)


def test_a_new_commit_is_read_anew(hub, repo, tmp_path):
    assert len(load_images("user/shapes", split="test")) == 40
    repo.commits.append({**repo.files, **shards(tmp_path, "test", make_images(8))})
    assert len(load_images("user/shapes", split="test")) == 8


def test_configurations_and_card_are_kept(hub, tmp_path):
    names = ["a", "b", "c", "d"]
    card = (
        "---\nconfigs:\n- config_name: one\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: test\n    path: data/test-*\ndataset_info:\n- config_name: one\n  features:\n"
        "  - name: image\n    dtype: image\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
        + "".join(f"          '{i}': {name}\n" for i, name in enumerate(names))
        + "  splits:\n  - name: train\n    num_examples: 6\n  - name: test\n    num_examples: 10\n---\n"
    )
    images = make_images(10).cast_column("label", datasets.Value("int64"))
    files = shards(tmp_path, "train", images) | shards(tmp_path, "test", images)
    hub.put("datasets/user/shapes", {**files, "README.md": card.encode()})
    data = load_images("user/shapes", "one", "test")
    assert data.features["label"].names == names and fetched(hub) == TEST_FILES
    with pytest.raises(ValueError, match="splits or other numbers of rows than its card states"):
        load_images("user/shapes", "one", "train")
    with pytest.raises(ValueError, match="'user/shapes', configuration 'two' has no such configuration.*one"):
        load_images("user/shapes", "two", "test")


@pytest.mark.parametrize("classes", [["disc", "square", "star"], ["square"]])
def test_labels_of_folders_of_images_are_numbered_over_all_splits(hub, tmp_path, classes):
    places = [f"train/{name}/{i}.png" for name in ("disc", "square", "star") for i in range(2)]
    places += [f"test/{name}/0.png" for name in classes]
    contents = [
        image["bytes"] for image in make_images(len(places)).cast_column("image", Image(decode=False))["image"]
    ]
    hub.put("datasets/user/shapes", dict(zip(places, contents, strict=True)))
    data = load_images("user/shapes", split="test")
    assert fetched(hub) == {place for place in places if place.startswith("test")}
    assert data.features["label"].names == ["disc", "square", "star"]
    assert [data.features["label"].int2str(label) for label in data["label"]] == classes
    whole = datasets.load_dataset("user/shapes", split="test", cache_dir=tmp_path / "other")
    assert data.features == whole.features and data["label"][:] == whole["label"][:]


def test_a_split_in_an_archive_is_found(tmp_path):
    make_images(1)[0]["image"].save(tmp_path / "a.png")
    (tmp_path / "set").mkdir()
    for split, count in (("train", 3), ("test", 2)):
        with ZipFile(tmp_path / "set" / f"{split}.zip", "w") as file:
            for number in range(count):
                file.write(tmp_path / "a.png", f"{number}.png")
    data = load_images(str(tmp_path / "set"), split="test")
    assert data.column_names == ["image"] and len(data) == 2


def test_of_few_rows_few_images_are_read_and_once(hub, tmp_path):
    big = make_images(200)
    noise = [os.urandom(20_000) for _ in range(200)]
    big = big.add_column("mask", noise)
    hub.put("datasets/user/shapes", shards(tmp_path, "test", big))
    size = split_size("user/shapes", split="test")
    assert size.num_rows == 200 and size.num_bytes > 200 * 20_000
    assert split_size("user/shapes", split="test[:25%]").num_rows == 50

    before = sum(hub.fetched("datasets/user/shapes").values())
    rows = load_for_some_rows("user/shapes", split="test")
    some = with_images(rows, [150, 3])
    read = sum(hub.fetched("datasets/user/shapes").values()) - before
    assert stored(some.select([150, 3])) == stored(big.select([150, 3]))
    assert read < size.num_bytes / 5
    before = sum(hub.fetched("datasets/user/shapes").values())
    again = with_images(rows, [150, 3])
    assert stored(again.select([150, 3])) == stored(big.select([150, 3]))
    assert sum(hub.fetched("datasets/user/shapes").values()) == before


def test_a_limit_reads_no_other_splits_and_gives_the_same_rows(hub, repo, processor):
    limited = load_set("user/shapes", processor, limit=3)
    assert fetched(hub) == TEST_FILES
    whole = load_set("user/shapes", processor, sample_ids=limited.sample_ids)
    for row in limited.sample_ids:
        few, all_of_it = limited[row], whole[row]
        assert few["labels"] == all_of_it["labels"] and few["images"].equal(all_of_it["images"])
    assert limited.shape == whole.shape and len(limited) == len(whole) == 40
    limited.check()


def test_a_wrong_count_is_refused_before_images_are_read(hub, processor, monkeypatch):
    put_sets(hub, ["dtd"], most=40)
    monkeypatch.setattr(loading, "with_images", None)  # which would be called to read them
    with pytest.raises(ValueError, match="'dtd' has 40 images, but 1880 are stated"):
        load_suite("paper16", processor, names=["dtd"], limit=2)
    assert hub.requests and not hub.served  # the card states how many there are


def test_what_is_cached_whole_is_taken_from_there(hub, repo):
    datasets.load_dataset("user/shapes", split="test")
    before = dict(hub.fetched("datasets/user/shapes"))
    data = load_images("user/shapes", split="test")
    rows = load_for_some_rows("user/shapes", split="test")
    after = dict(hub.fetched("datasets/user/shapes"))
    read = {path for path in after if path.endswith(".parquet") and after[path] != before.get(path)}
    assert not read and rows.column_names == data.column_names == ["image", "label"]
    assert with_images(rows, [0]) is rows


def test_one_shard_of_a_split_wins_over_the_text_that_counts_it(hub):
    image = make_images(1).cast_column("image", Image(decode=False))["image"][0]["bytes"]
    files = {}
    for split, count in (("train", 1), ("test", 2)):
        shard = io.BytesIO()
        with tarfile.open(fileobj=shard, mode="w") as file:
            for number in range(count):
                for ending, content in (("png", image), ("cls", b"1")):
                    entry = tarfile.TarInfo(f"s{number}.{ending}")
                    entry.size = len(content)
                    file.addfile(entry, io.BytesIO(content))
        files |= {f"{split}/0.tar": shard.getvalue(), f"{split}/nshards.txt": b"1"}
    hub.put("datasets/user/shapes", files)
    data = load_images("user/shapes", split="test")
    assert data["cls"][:] == [1, 1] and "png" in data.column_names
    assert "train/0.tar" not in hub.fetched("datasets/user/shapes")
