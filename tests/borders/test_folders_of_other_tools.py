"""Folders that other tools wrote: what is in them, or one clear refusal. Pickles are never opened."""

import gzip
import json
import pickle
import zipfile

import datasets
import pytest
from support.borders import Refused, check, outcomes
from support.shards import picture, write_files
from support.tiny import CLASS_NAMES, make_images, make_processor

from hf_pmgaft.data import load_images, training_examples

JPEG = picture(kind="JPEG")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
PULL = Refused("Run `git lfs pull`")
NO_CLASSES = Refused("A folder of images needs a folder for each class at one depth")
NOT_OURS = Refused("holds no images, parquet, CSV or .tar files")
CAPTIONS = json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": []}).encode()


class Opened:
    """A pickle that tells when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("A pickle was opened.",)


def pictures(*names: str) -> dict[str, bytes]:
    return dict.fromkeys(names, JPEG)


FOLDERS = {
    "torchvision's ImageNet": (
        {**pictures("train/cat/a.JPEG", "train/dog/a.JPEG", "val/cat/b.JPEG", "val/dog/b.JPEG"), "meta.bin": b"x"},
        (["cat", "dog"], [0, 1]),
    ),
    "torchvision's EuroSAT": (
        pictures("2750/Forest/1.jpg", "2750/River/2.jpg"),
        (["Forest", "River"], [0, 1]),
    ),
    "what an archive of macOS holds": (
        {**pictures("cat/a.jpg", "dog/b.jpg"), "__MACOSX/cat/._a.jpg": b"x", "cat/._a.jpg": b"x"},
        (["cat", "dog"], [0, 1]),
    ),
    "Tiny ImageNet as it is published": (
        {
            **pictures("train/n01/images/n01_0.JPEG", "train/n02/images/n02_0.JPEG"),
            **pictures("val/images/val_0.JPEG", "val/images/val_1.JPEG"),
            "train/n01/n01_boxes.txt": b"n01_0.JPEG\t0\t0\t9\t9\n",
            "val/val_annotations.txt": b"val_0.JPEG\tn01\t0\t0\t9\t9\n",
            "wnids.txt": b"n01\nn02\n",
        },
        NO_CLASSES,
    ),
    "COCO with two parts": (
        {
            **pictures("train2017/1.jpg", "val2017/2.jpg"),
            "annotations/captions_train2017.json": CAPTIONS,
        },
        Refused("which are splits: there are no folders of classes"),
    ),
    "a competition's train and test": (
        {**pictures("train/1.jpg", "test/2.jpg"), "train.csv": b"id,breed\n1,cat\n"},
        Refused("which are splits: there are no folders of classes"),
    ),
    "splits that say what is in them": (
        pictures("train_images/1.jpg", "test_images/2.jpg"),
        Refused("which are splits: there are no folders of classes"),
    ),
    "a competition's table beside its images": (
        {**pictures(*[f"train/{i}.jpg" for i in range(4)]), "labels.csv": b"id,breed\n1,cat\n"},
        NO_CLASSES,
    ),
    "a table whose images are elsewhere": (
        {**pictures("images/1.jpg"), "train.csv": b"image,label\n1.jpg,cat\n2.jpg,dog\n"},
        Refused("there is no file '1.jpg'"),
    ),
    "torchvision's Flowers": (
        {**pictures("flowers-102/jpg/1.jpg", "flowers-102/jpg/2.jpg"), "flowers-102/imagelabels.mat": b"x"},
        NO_CLASSES,
    ),
    "torchvision's DTD": (
        {**pictures("dtd/images/banded/1.jpg", "dtd/images/dotted/2.jpg"), "dtd/labels/train1.txt": b"banded/1.jpg\n"},
        Refused("none of the usual image columns"),
    ),
    "torchvision's CIFAR": (
        {f"cifar-10-batches-py/{name}": pickle.dumps(Opened()) for name in ("data_batch_1", "batches.meta")},
        NOT_OURS,
    ),
    "a pickle": ({"train.pkl": pickle.dumps(Opened())}, NOT_OURS),
    "torch's own files": ({"train.pt": pickle.dumps(Opened())}, NOT_OURS),
    "MNIST's files": ({"train-images-idx3-ubyte.gz": gzip.compress(b"x")}, NOT_OURS),
    "arrays of NumPy": ({"train.npz": b"PK"}, NOT_OURS),
    "TFRecords": ({"train.tfrecord": b"x"}, NOT_OURS),
    "a table that Git LFS left out": ({"data/train-00000-of-00001.parquet": POINTER}, PULL),
    "a CSV file that Git LFS left out": ({"train.csv": POINTER}, PULL),
    "images that Git LFS left out": (
        {"train/cat/a.jpg": POINTER, "train/dog/b.jpg": JPEG},
        Refused("its file only says where Git LFS keeps it: run `git lfs pull`"),
    ),
    "an archive that Git LFS left out": ({"train.zip": POINTER}, Refused("run `git lfs pull`")),
    "a card that is no YAML": (
        {"README.md": b"---\nconfigs: [\n---\n", "train/cat/a.jpg": JPEG},
        Refused("cannot be read (while parsing"),
    ),
    "a card of files that are not there": (
        {"README.md": b"---\nconfigs:\n- config_name: default\n  data_files: data/*\n---\n", "train/cat/a.jpg": JPEG},
        NOT_OURS,
    ),
}


def labels_of(folder, split="train"):
    """The classes of a set, and the label of each row once its image is read."""
    examples = training_examples(load_images(str(folder), split=split), make_processor())
    return examples.class_names, [examples[row]["labels"] for row in range(len(examples))]


@outcomes(FOLDERS)
def test_folders_of_other_tools(given, outcome, tmp_path):
    write_files(tmp_path / "set", given)
    check(lambda: labels_of(tmp_path / "set"), outcome)


def test_the_validation_images_of_tiny_imagenet_are_no_class(tmp_path):
    write_files(tmp_path / "set", FOLDERS["Tiny ImageNet as it is published"][0])
    with pytest.raises(ValueError, match="a folder for each class"):
        labels_of(tmp_path / "set", split="validation")


# ---- What save_to_disk wrote, and clones of the Hub ----

SAVED = {
    "one set": ("one", "train", 4),
    "one set, which has no splits": ("one", "test", 4),
    "a slice of it": ("one", "train[:3]", 3),
    "several splits": ("several", "test", 2),
    "two of them": ("several", "train+test", 6),
    "slices of two": ("several", "train[:50%]+test[1:]", 3),
    "a split's own folder": ("several/train", "train", 4),
    "a split that it does not have": ("several", "validation", Refused("has no split 'validation'. It has")),
    "a slice that is none": ("one", "train[:x]", Refused("split 'train[:x]' cannot be read")),
    "rows that are not there": ("lost", "train", Refused("cannot be read")),
    "rows that Git LFS left out": ("pointer", "train", PULL),
    "a state that was cut off": ("cut", "train", Refused("cannot be read")),
    "a split whose folder is not there": ("unlike", "train", Refused("cannot be read")),
    "a snapshot of links": ("snapshot", "train", 4),
    "a snapshot whose file is gone": ("snapshot", "test", Refused("has no split 'test'. It has: ['train']")),
    "a folder with a card": ("carded", "train", 4),
    "a zip of classes": ("zipped", "train", Refused("cannot be read")),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    four, two = make_images(4), make_images(2)
    for name in ("one", "lost", "pointer", "cut"):
        four.save_to_disk(root / name)
    for name in ("several", "unlike"):
        datasets.DatasetDict(train=four, test=two).save_to_disk(root / name)
    rows = "data-00000-of-00001.arrow"
    (root / "lost" / rows).unlink()
    (root / "pointer" / rows).write_bytes(POINTER)
    (root / "cut" / "state.json").write_text("{")
    (root / "unlike" / "dataset_dict.json").write_text('{"splits": ["train", "gone"]}')

    four.to_parquet(root / "blob")
    (root / "snapshot").mkdir()
    (root / "snapshot" / "train.parquet").symlink_to(root / "blob")
    (root / "snapshot" / "test.parquet").symlink_to(root / "gone")
    card = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/a*\n---\n"
    write_files(root / "carded", {"README.md": card, "data/a.parquet": (root / "blob").read_bytes()})
    (root / "zipped").mkdir()
    with zipfile.ZipFile(root / "zipped" / "train.zip", "w") as archive:
        for name in ("cat/a.jpg", "dog/b.jpg"):
            archive.writestr(name, JPEG)
    return root


@outcomes({name: ((folder, split), outcome) for name, (folder, split, outcome) in SAVED.items()})
def test_saved_sets_and_clones(given, outcome, saved):
    folder, split = given

    def number_of_rows():
        names, labels = labels_of(saved / folder, split)
        assert names == CLASS_NAMES
        return len(labels)

    check(number_of_rows, outcome)
