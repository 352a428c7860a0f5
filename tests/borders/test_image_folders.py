"""Folders of images as they lie on disks: the classes and images in them, or one clear refusal."""

import pytest
from PIL import Image
from support.borders import Refused, check, outcomes
from support.tiny import make_processor

from hf_pmgaft.data import load_images, training_examples

TWO = {"train/cat/a.png": "red", "train/dog/b.png": "blue"}
NAMES, BOTH = ["cat", "dog"], (["cat", "dog"], [0, 1])
NO_LABELS = Refused("none of the usual label columns")


FOLDERS = {
    "a folder for each class": (TWO, BOTH),
    "no folder for the split": ({"cat/a.png": "red", "dog/b.png": "blue"}, BOTH),
    "a class without images": ({**TWO, "train/bird/": None}, BOTH),
    "capitals in suffixes": ({"train/cat/a.PNG": "red", "train/dog/b.JPG": "blue"}, BOTH),
    "spaces and letters beyond ASCII": (
        {"train/große Katze/a.png": "red", "train/犬/b 1.png": "blue"},
        (["große Katze", "犬"], [0, 1]),
    ),
    "a hidden class": ({**TWO, "train/.bird/c.png": "red"}, BOTH),
    "a hidden image": ({**TWO, "train/cat/.c.png": "red"}, BOTH),
    "what macOS leaves behind": (
        {**TWO, ".DS_Store": b"x", "train/.DS_Store": b"x", "train/cat/.DS_Store": b"x"},
        BOTH,
    ),
    "what archives of macOS leave behind": ({**TWO, "__MACOSX/cat/._a.png": b"x"}, BOTH),
    "what Windows leaves behind": ({**TWO, "train/cat/Thumbs.db": b"x"}, BOTH),
    "a text beside the images": ({**TWO, "README.txt": b"mine", "train/cat/notes.txt": b"mine"}, BOTH),
    "classes in a folder of theirs": ({"train/animals/cat/a.png": "red", "train/animals/dog/b.png": "blue"}, BOTH),
    "a table of labels": (
        {
            "train/a.png": "red",
            "train/b.png": "blue",
            "train/metadata.csv": b"file_name,label\na.png,cat\nb.png,dog\n",
        },
        BOTH,
    ),
    "another folder in each class": ({"train/cat/images/a.png": "red", "train/dog/images/b.png": "blue"}, NO_LABELS),
    "classes of several depths": ({"train/cat/a.png": "red", "train/dog/big/b.png": "blue"}, NO_LABELS),
    "no classes": ({"a.png": "red", "b.png": "blue"}, NO_LABELS),
    "one class": ({"train/cat/a.png": "red", "train/cat/b.png": "red"}, NO_LABELS),
    "an empty file": (
        {**TWO, "train/dog/c.png": b""},
        Refused("The image in row 2, column 'image', cannot be read (its 0"),
    ),
    "a page of HTML under the name of an image": (
        {**TWO, "train/dog/c.jpg": b"<html>"},
        Refused("The image in row 2, column 'image', cannot be read (its 6 bytes are no image"),
    ),
}


@outcomes(FOLDERS)
def test_folders_of_images(given, outcome, tmp_path):
    for name, content in given.items():
        file = tmp_path / "set" / name
        if content is None:
            file.mkdir(parents=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            Image.new("RGB", (20, 20), content).save(file)

    def read():
        examples = training_examples(load_images(str(tmp_path / "set")), make_processor())
        return examples.class_names, [examples[row]["labels"] for row in range(len(examples))]

    check(read, outcome)


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_a_folder_of_nothing_is_refused(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises((OSError, ValueError), match=name):
        load_images(str(tmp_path / name))


def test_a_single_image_is_no_set(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "cat.png")
    with pytest.raises(ValueError, match="cat.png is no parquet file, shard or CSV file. Pass one, a folder"):
        load_images(str(tmp_path / "cat.png"))
