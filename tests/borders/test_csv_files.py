"""CSV files as people save them: the images and classes that they name, or one clear refusal."""

import shutil

import pytest
from PIL import Image
from support.borders import Refused, check, outcomes
from support.tiny import make_processor

from hf_pmgaft.data import load_images, training_examples

PLAIN = (["cat", "dog"], [0, 1], ["red", "blue"])

TEXTS = {
    "two rows": ("path,label\ncat.png,cat\ndog.png,dog\n", PLAIN),
    "no line end at the end": ("path,label\ncat.png,cat\ndog.png,dog", PLAIN),
    "a byte order mark": ("\ufeffpath,label\ncat.png,cat\ndog.png,dog\n", PLAIN),
    "a byte order mark and quotes": ('\ufeff"path","label"\n"cat.png","cat"\n"dog.png","dog"\n', PLAIN),
    "Windows line ends": ("path,label\r\ncat.png,cat\r\ndog.png,dog\r\n", PLAIN),
    "line ends of old Macs": ("path,label\rcat.png,cat\rdog.png,dog\r", PLAIN),
    "empty lines": ("path,label\n\ncat.png,cat\n\ndog.png,dog\n\n", PLAIN),
    "spaces after commas": ("path, label\ncat.png, cat\ndog.png, dog\n", PLAIN),
    "a comma in quotes": (
        'path,label\ncat.png,"cat, big"\ndog.png,dog\n',
        (["cat, big", "dog"], [0, 1], ["red", "blue"]),
    ),
    "classes that look like missing values": (
        "path,label\ncat.png,null\ndog.png,NA\n",
        (["NA", "null"], [1, 0], ["red", "blue"]),
    ),
    "letters beyond ASCII": ("path,label\ncat.png,猫\ndog.png,Hündin\n", (["Hündin", "猫"], [1, 0], ["red", "blue"])),
    "absolute paths": ("path,label\n{folder}/cat.png,cat\n{folder}/dog.png,dog\n", PLAIN),
    "a path through the folder above": ("path,label\n../{name}/cat.png,cat\ndog.png,dog\n", PLAIN),
    "columns in another order, and more": ("id,label,path\n1,cat,cat.png\n2,dog,dog.png\n", PLAIN),
    "semicolons": (
        "path;label\ncat.png;cat\ndog.png;dog\n",
        Refused("is separated by semicolons. Save it with commas"),
    ),
    "tabs": ("path\tlabel\ncat.png\tcat\n", Refused("is separated by tabs. Save it with commas")),
    "UTF-16": ("path,label\ncat.png,cat\n".encode("utf-16"), Refused("is no text in UTF-8")),
    "Latin-1 in its first line": ("path,größe\ncat.png,1\n".encode("latin-1"), Refused("is no text in UTF-8")),
    "nothing": ("", Refused("begins with an empty line. Name the columns in its first line")),
    "no names of columns": ("cat.png,cat\ndog.png,dog\n", Refused("it has ['cat.png', 'cat']. Pass the right one")),
    "a column twice": ("path,label,label\ncat.png,cat,dog\n", Refused("several columns of the name 'label'")),
    "no label column": ("path\ncat.png\ndog.png\n", Refused("none of the usual label columns")),
    "no image column": ("label,size\ncat,3\n", Refused("none of the usual image columns")),
    "other names of columns": ("picture_path,kind\ncat.png,cat\n", Refused("it has ['picture_path', 'kind']")),
    "an empty label": (
        "path,label\ncat.png,cat\ndog.png,\ndog.png,dog\n",
        Refused("Row 1 has the label '', which is not among the 2 classes"),
    ),
    "an empty path": (
        "path,label\ncat.png,cat\n,dog\n",
        Refused("The image in row 1, column 'path', cannot be read (there"),
    ),
    "a file that is not there": (
        "path,label\ncat.png,cat\nbird.png,dog\n",
        Refused("row 1, column 'path', cannot be"),
    ),
    "a path of Windows": (
        "path,label\n.\\cat.png,cat\ndog.png,dog\n",
        Refused("row 0, column 'path', cannot be read ("),
    ),
    "an address that does not answer": (
        "path,label\nfile:///nowhere/x.png,cat\ndog.png,dog\n",
        Refused("(nothing can be read from 'file:///nowhere/x.png')"),
    ),
    "numbers as labels": ("path,label\ncat.png,0\ndog.png,1\n", Refused("names no classes. Pass `class_names`")),
    "one class": ("path,label\ncat.png,cat\n", Refused("a classifier needs at least 2")),
}


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("cat", "red"), ("dog", "blue")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def colour(pixels) -> str:
    return "red" if pixels[0].mean() > pixels[2].mean() else "blue"


@outcomes(TEXTS)
def test_csv_files(given, outcome, folder, monkeypatch):
    if isinstance(given, str):
        given = given.replace("{folder}", str(folder)).replace("{name}", folder.name).encode()
    (folder / "images.csv").write_bytes(given)
    monkeypatch.chdir("/")  # paths do not start here

    def read():
        examples = training_examples(load_images(str(folder / "images.csv")), make_processor())
        rows = [examples[row] for row in range(len(examples))]
        return (
            examples.class_names,
            [row["labels"] for row in rows],
            [colour(row["pixel_values"]) for row in rows],
        )

    check(read, outcome)


def test_capitals_in_a_suffix_change_nothing(folder):
    (folder / "images.CSV").write_text("path,label\ncat.png,cat\ndog.png,dog\n")
    assert len(load_images(str(folder / "images.CSV"))) == 2


def test_a_file_of_the_same_name_in_another_folder_is_another_set(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "dog.png", other / "cat.png")
    for place in (folder, other):
        (place / "images.csv").write_text("path,label\ncat.png,cat\ncat.png,dog\n")
    found = [
        colour(training_examples(load_images(str(place / "images.csv")), make_processor())[0]["pixel_values"])
        for place in (folder, other)
    ]
    assert found == ["red", "blue"]
