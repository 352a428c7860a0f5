"""Webdataset shards as packers write them and disks keep them: their samples, or one clear refusal."""

import gzip

import datasets
import pytest
from support.borders import Refused, check, outcomes
from support.shards import picture, shard, write_files
from support.tiny import make_processor

from hf_pmgaft.data import load_images, training_examples
from hf_pmgaft.data.local_files import check_local_files

IMAGE, JPEG = picture(), picture(kind="JPEG")
TWO = (("0.png", IMAGE), ("0.cls", "0"), ("1.png", IMAGE), ("1.cls", "1"))
LONG = shard(*[file for i in range(20) for file in ((f"{i:03}.png", IMAGE), (f"{i:03}.cls", str(i % 2)))])
BOTH = [0, 1]
UNLIKE = Refused("has samples of different files")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


def counted(split: str, count: int, *numbers: int) -> dict[str, bytes]:
    """Shards of a split in the layout of CLIP benchmark, and the text that counts them."""
    shards = {f"{split}/{number}.tar": shard(*TWO) for number in numbers}
    return {**shards, f"{split}/nshards.txt": str(count).encode()}


LABELLED = {
    "numbers of classes": ({"a.tar": shard(*TWO)}, BOTH),
    "numbers with a line break": (
        {"a.tar": shard(("0.png", IMAGE), ("0.cls", "0\n"), ("1.png", IMAGE), ("1.cls", "1\n"))},
        BOTH,
    ),
    "a shard for each split": ({"train-0.tar": shard(*TWO), "test-0.tar": shard(*TWO[:2])}, BOTH),
    "two shards": ({"a.tar": shard(*TWO), "b.tar": shard(*TWO)}, [0, 1, 0, 1]),
    "the layout of CLIP benchmark": (
        {
            "train/0.tar": shard(*TWO),
            "train/nshards.txt": b"1\n",
            "test/0.tar": shard(*TWO[:2]),
            "test/nshards.txt": b"1\n",
            "classnames.txt": b"cat\ndog\n",
            "zeroshot_classification_templates.txt": b"a photo of {c}\n",
        },
        BOTH,
    ),
    "several shards beside a split of one": (
        {**counted("train", 3, 0, 1, 2), **counted("test", 1, 0)},
        BOTH * 3,
    ),
    "one shard beside a split of several": ({**counted("train", 1, 0), **counted("test", 3, 0, 1, 2)}, BOTH),
    "a count with a line break of Windows": ({"train/0.tar": shard(*TWO), "train/nshards.txt": b"1\r\n"}, BOTH),
    "a missing shard of another split": ({**counted("train", 1, 0), **counted("test", 3, 0, 2)}, BOTH),
    "a missing shard": (
        counted("train", 3, 0, 2),
        Refused("train/nshards.txt counts 3 shards from 0.tar on, but 1.tar is missing"),
    ),
    "the last shards missing": (
        counted("train", 12, *range(10)),
        Refused("counts 12 shards from 0.tar on, but 10.tar"),
    ),
    "the only shard missing": (counted("train", 1), Refused("counts 1 shards from 0.tar on, but 0.tar is missing")),
    "shards counted from 1": (
        counted("train", 2, 1, 2),
        Refused("counts 2 shards from 0.tar on, but 0.tar is missing"),
    ),
    "a shard that is not counted": (
        counted("train", 2, 0, 1, 2),
        Refused("counts 2 shards from 0.tar on, but 2.tar is there too"),
    ),
    "a count of none": (counted("train", 0, 0, 1), Refused("counts 0 shards from 0.tar on, but 0.tar is there too")),
    "a count in words": (
        {**counted("train", 2, 0, 1), "train/nshards.txt": b"two"},
        Refused("train/nshards.txt holds b'two' in place of a number of shards"),
    ),
    "an empty count": ({**counted("train", 2, 0, 1), "train/nshards.txt": b""}, Refused("holds b'' in place of")),
    "capitals in suffixes": (
        {"a.tar": shard(("0.JPG", JPEG), ("0.cls", "0"), ("1.JPG", JPEG), ("1.cls", "1"))},
        BOTH,
    ),
    "folders in it": ({"a.tar": shard(*[(f"x.y/{name}", content) for name, content in TWO])}, BOTH),
    "names of Windows": ({"a.tar": shard(*[(f"x\\{name}", content) for name, content in TWO])}, BOTH),
    "names that start at this folder": ({"a.tar": shard(*[(f"./{name}", content) for name, content in TWO])}, BOTH),
    "what macOS leaves behind": ({"a.tar": shard(("._0.png", "x"), *TWO[:2], ("._1.png", "x"), *TWO[2:])}, BOTH),
    "compressed": ({"a.tar.gz": gzip.compress(shard(*TWO))}, BOTH),
    "compressed under the name of another": ({"a.tar": gzip.compress(shard(*TWO))}, BOTH),
    "dots in the keys": (
        {"a.tar": shard(*[(f"img.{name}", content) for name, content in TWO])},
        Refused("none of the usual image columns"),
    ),
    "several images in a sample": (
        {"a.tar": shard(("0.left.png", IMAGE), ("0.right.png", IMAGE), ("0.cls", "0"))},
        Refused("none of the usual image columns"),
    ),
    "a sample without its image": ({"a.tar": shard(TWO[0], TWO[1], ("1.cls", "1"))}, UNLIKE),
    "a sample without its label": ({"a.tar": shard(*TWO[:3])}, UNLIKE),
    "all images before all labels": ({"a.tar": shard(TWO[0], TWO[2], TWO[1], TWO[3])}, UNLIKE),
    "a late sample without its label": (
        {
            "a.tar": shard(
                *[file for i in range(8) for file in ((f"{i}.png", IMAGE), (f"{i}.cls", "0"))], ("9.png", IMAGE)
            )
        },
        Refused("Row 8 has the label None"),
    ),
    "images of two kinds": (
        {"a.tar": shard(("0.png", IMAGE), ("0.cls", "0"), ("1.jpg", JPEG), ("1.cls", "1"))},
        UNLIKE,
    ),
    "shards of two kinds": (
        {"a.tar": shard(*TWO), "b.tar": shard(("2.jpg", JPEG), ("2.cls", "0"))},
        Refused("The image in row 2, column 'png', cannot be read (there is none)"),
    ),
    "names of classes": ({"a.tar": shard(("0.png", IMAGE), ("0.cls", "cat"))}, Refused("invalid literal for int()")),
    "cut off within a file": ({"a.tar": LONG[:700]}, Refused("has no end, so it was cut off")),
    "cut off between two samples": ({"a.tar": LONG[: 4 * 512 * 10]}, Refused("has no end, so it was cut off")),
    "cut off in compression": ({"a.tar.gz": gzip.compress(LONG)[:-60]}, Refused("cannot be read")),
    "no shard": ({"a.tar": b"x" * 2000}, Refused("cannot be read")),
    "no samples": ({"a.tar": shard()}, Refused("has no rows")),
    "no bytes": ({"a.tar": b""}, Refused("cannot be read (empty file)")),
    "what Git LFS left": ({"a.tar": POINTER}, Refused("Run `git lfs pull`")),
    "the number of shards alone": ({"nshards.txt": b"1\n"}, Refused("counts 1 shards from 0.tar on, but 0.tar")),
}


@outcomes(LABELLED)
def test_shards_with_labels(given, outcome, tmp_path):
    write_files(tmp_path / "set", given)

    def labels():
        examples = training_examples(load_images(str(tmp_path / "set")), make_processor(), class_names=["cat", "dog"])
        return [examples[row]["labels"] for row in range(len(examples))]

    check(labels, outcome)


CAPTIONED = {
    "texts": (("txt", {"a.tar": shard(("0.png", IMAGE), ("0.txt", "the red disc"))}), [["the red disc"]]),
    "fields of JSON": (
        ("json.caption", {"a.tar": shard(("0.png", IMAGE), ("0.json", {"caption": "a disc", "width": 20}))}),
        [["a disc"]],
    ),
    "lists in JSON": (
        ("json.captions", {"a.tar": shard(("0.png", IMAGE), ("0.json", {"captions": ["a disc", "a square"]}))}),
        [["a disc", "a square"]],
    ),
    "both, by the usual name": (
        ("auto", {"a.tar": shard(("0.png", IMAGE), ("0.txt", "a disc"), ("0.json", {"caption": "no"}))}),
        [["a disc"]],
    ),
    "what img2dataset writes beside": (
        (
            "auto",
            {
                "00000.tar": shard(("0.jpg", JPEG), ("0.txt", "a disc"), ("0.json", {"caption": "no"})),
                "00000.parquet": b"PAR1",
                "00000_stats.json": b"{}",
            },
        ),
        [["a disc"]],
    ),
    "a byte order mark": (
        ("txt", {"a.tar": shard(("0.png", IMAGE), ("0.txt", "\ufeffa disc"))}),
        [["a disc"]],
    ),
    "a field that one sample lacks": (
        (
            "json.caption",
            {
                "a.tar": shard(
                    ("0.png", IMAGE), ("0.json", {"caption": "a"}), ("1.png", IMAGE), ("1.json", {"width": 20})
                )
            },
        ),
        Refused("Row 1 has no caption"),
    ),
    "a field that no sample has": (
        ("json.text", {"a.tar": shard(("0.png", IMAGE), ("0.json", {"caption": "a"}))}),
        Refused("there is no 'text' in 'json'"),
    ),
    "an empty text": (("txt", {"a.tar": shard(("0.png", IMAGE), ("0.txt", ""))}), Refused("Row 0 has no caption")),
    "texts that are not UTF-8": (
        ("txt", {"a.tar": shard(("0.png", IMAGE), ("0.txt", "gr\xfcn".encode("latin-1")))}),
        Refused("can't decode byte 0xfc"),
    ),
    "JSON that is none": (
        ("json.caption", {"a.tar": shard(("0.png", IMAGE), ("0.json", "{"))}),
        Refused("cannot be read"),
    ),
}


@outcomes(CAPTIONED)
def test_shards_with_captions(given, outcome, tmp_path):
    column, files = given
    write_files(tmp_path / "set", files)

    def captions():
        rows = load_images(str(tmp_path / "set"))
        examples = training_examples(rows, make_processor(), caption_column=column, needs_labels=False)
        return [examples.captions.texts(row, position) for position, row in examples.rows()]

    check(captions, outcome)


@pytest.mark.parametrize("streaming", [False, True])
def test_folders_of_shards_are_streamed_as_they_are_loaded(streaming, tmp_path):
    write_files(tmp_path / "set", LABELLED["the layout of CLIP benchmark"][0])
    rows = load_images(str(tmp_path / "set"), split="train", streaming=streaming)
    assert [row["cls"] for row in rows] == [0, 1]


@pytest.mark.parametrize("streaming", [False, True])
def test_shards_of_the_hub_are_counted_before_they_are_read(streaming, hub):
    hub.put(
        "datasets/user/whole", {**counted("train", 1, 0), **counted("test", 2, 0, 1), "classnames.txt": b"cat\ndog"}
    )
    rows = load_images("user/whole", split="test", streaming=streaming)
    assert [row["cls"] for row in rows] == [0, 1, 0, 1]

    hub.put("datasets/user/part", {**counted("train", 1, 0), **counted("test", 3, 0, 2)})
    with pytest.raises(ValueError, match=r"user/part', split 'test' .*test/nshards.txt counts 3 .* 1\.tar is missing"):
        load_images("user/part", split="test", streaming=streaming)
    assert not [file for file in hub.fetched("datasets/user/part") if file.endswith(".tar")]


@pytest.mark.parametrize(("train", "test"), [(1, 1), (2, 2), (3, 1), (1, 3)])
def test_splits_of_any_number_of_shards_are_found_offline_once_they_were_loaded(hub, monkeypatch, train, test):
    hub.put("datasets/user/set", {**counted("train", train, *range(train)), **counted("test", test, *range(test))})
    sizes = {split: load_images("user/set", split=split).num_rows for split in ("test", "train")}
    assert sizes == {"test": 2 * test, "train": 2 * train}
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert {split: load_images("user/set", split=split).num_rows for split in sizes} == sizes


def test_a_new_commit_of_shards_is_read_anew(hub):
    repo = hub.put("datasets/user/set", counted("test", 1, 0))
    assert load_images("user/set", split="test").num_rows == 2
    repo.commits.append({"test/0.tar": LONG, "test/nshards.txt": b"1"})
    assert load_images("user/set", split="test").num_rows == 20
    assert load_images("user/set", split="test", revision=repo.sha(0)).num_rows == 2


def test_one_shard_of_several_that_is_chosen_by_its_name_is_read_alone(tmp_path):
    write_files(tmp_path / "set", counted("train", 3, 0, 2))
    assert load_images(str(tmp_path / "set"), data_files="train/2.tar").num_rows == 2
    assert load_images(str(tmp_path / "set" / "train" / "2.tar")).num_rows == 2
    with pytest.raises(ValueError, match="1.tar is missing"):
        load_images(str(tmp_path / "set"), data_files="train/*.tar")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_shard_that_was_cut_off_is_refused_wherever_it_is_read(streaming, tmp_path):
    (tmp_path / "a.tar").write_bytes(LONG[: 4 * 512 * 10])
    for name in (tmp_path, tmp_path / "a.tar"):
        with pytest.raises(ValueError, match=r"a\.tar' has no end, so it was cut off"):
            load_images(str(name), streaming=streaming)


def test_other_files_and_addresses_are_not_looked_at(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"x" * 5000)
    check_local_files([str(tmp_path / "a.parquet"), str(tmp_path / "gone.tar"), "hf://datasets/user/set/a.tar"])
