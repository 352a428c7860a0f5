"""Names of sets as users type them, with and without a file or folder that is called so."""

import datasets
import pytest
from support.borders import Refused, check, outcomes
from support.tiny import make_images

from hf_pmgaft.suites import find_known_set, load_captioned_set, load_set
from hf_pmgaft.suites.training import load_training_set

NAMES = {
    "a bare name": ("tiny_imagenet", "paper16:tiny_imagenet"),
    "a name of two suites": ("imagenet", "paper16:imagenet"),
    "a name of the other suite": ("imagenet_r", "natural_shift:imagenet_r"),
    "a suite and its set": ("paper16:dtd", "paper16:dtd"),
    "another suite's": ("natural_shift:imagenet", "natural_shift:imagenet"),
    "a split": ("cifar10@train", "paper16:cifar10"),
    "a revision": ("cifar10@train#v1", "paper16:cifar10"),
    "upper case": ("CIFAR10", Refused("Pass cifar10 if you mean paper16:cifar10")),
    "the original's name": ("tiny-imagenet-200", Refused("Pass tiny_imagenet if you mean paper16:tiny_imagenet")),
    "a hyphen in place of an underscore": ("cifar-100", Refused("Pass cifar100 if you mean paper16:cifar100")),
    "a letter too few": ("stanford_car", Refused("Pass stanford_cars if you mean")),
    "two letters exchanged": ("oxfrod_pets", Refused("Pass oxford_pets if you mean")),
    "a Hub id": ("zh-plus/tiny-imagenet", None),
    "the old Hub name of a known set": ("imagenet-1k", None),
    "another old Hub name": ("mnist", None),
    "a configuration of such a one": ("glue:mrpc", None),
    "a suite that is none": (
        "paper17:dtd",
        Refused("'paper17' is no suite. Pass dtd, paper16:dtd, or USER/"),
    ),
    "a set that the suite has not": ("paper16:mnist", Refused("The suite 'paper16' has no set 'mnist'. It has: tiny")),
    "a whole suite": ("paper16", Refused("which is a whole suite. Pass one set of it, such as paper16:tiny_imagenet")),
    "a whole suite with a split": ("paper16@test", Refused("which is a whole suite")),
    "no revision": ("dtd#", Refused("names no revision after #")),
    "a file's name": ("cifar10.parquet", None),
    "a path": ("./cifar10", None),
    "nothing": ("", Refused("names no data set. Write NAME")),
}


@outcomes(NAMES)
def test_names_of_sets(given, outcome):
    def text():
        known = find_known_set(given)
        return None if known is None else known.text

    check(text, outcome)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Local sets that are called as known ones, and a known one's stand-in."""
    monkeypatch.chdir(tmp_path)
    datasets.DatasetDict(test=make_images(8), train=make_images(12)).save_to_disk("cifar10")
    (tmp_path / "imagenet").mkdir()
    make_images(4).to_parquet("imagenet/test.parquet")
    (tmp_path / "paper16").mkdir()
    make_images(4).to_parquet("paper16/dtd.parquet")
    (tmp_path / "own.yaml").write_text(
        "toys: {path: cifar10, split: test, train_split: train, class_names: [a, b, c, d],\n"
        "  labels: [red disc, green disc, blue square, yellow square]}\n"
        "blocks: {path: cifar10, split: test, class_names: [a, b, c, d],\n"
        "  labels: [red disc, green disc, blue square, yellow square]}\n"
        "mixed: {path: cifar10, train_split: train, class_names: [a, b, c, d],\n"
        "  labels: [green disc, red disc, blue square, yellow square]}\n"
    )


TRAINED = {
    "a local folder called as a known set": ("cifar10", (12, "red disc")),
    "its other split": ("cifar10@test", (8, "red disc")),
    "a suite's training split": ("own.yaml:toys", (12, "a")),
    "a split in its place": ("own.yaml:toys@test", (8, "a")),
    "no training split": ("own.yaml:blocks", Refused("own.yaml:blocks has no training split: test is what is")),
    "a split where none is stated": ("own.yaml:blocks@train", (12, "a")),
    "labels in another order": ("own.yaml:mixed", Refused("Label 0 of 'mixed' is 'red disc', but 'green disc'")),
    "a set all of which is evaluated": ("sun397", Refused("paper16:sun397 has no training split: train is what is")),
    "a set made for tests": ("imagenet_v2", Refused("natural_shift:imagenet_v2 has no training split")),
    "a whole suite": (
        "own.yaml",
        Refused("is a whole suite. Pass one set of it, such as own.yaml:toys"),
    ),
    "a suite's set that is not there": ("own.yaml:cars", Refused("has no set 'cars'. It has: toys, blocks, mixed")),
    "a typo": ("tiny_imagnet", Refused("Pass tiny_imagenet if you mean")),
}


@outcomes(TRAINED)
def test_sets_to_train_on(given, outcome, folders, processor):
    def size_and_first_name():
        examples = load_training_set(given, processor)
        return len(examples), examples.class_names[0]

    check(size_and_first_name, outcome)


EVALUATED = {
    "a folder called as a known set": (("cifar10", {}), 8),
    "a suite's evaluated split": (("own.yaml:toys", {}), 8),
    "its part to fit a head on": (("own.yaml:toys", {"part": "train_split"}), 12),
    "a split of that part": (("own.yaml:toys@test", {"part": "train_split"}), 8),
    "a plain set's part": (("cifar10", {"part": "train_split"}), 8),
    "a part that is none": (("own.yaml:toys", {"part": "train"}), Refused("part")),
    "no part to fit on": (("own.yaml:blocks", {"part": "train_split"}), Refused("has no training split")),
    "another split than the suite's": (("own.yaml:toys@train", {}), Refused("a split for own.yaml:toys")),
    "class names beside the suite's": (("own.yaml:toys", {"class_names": ["x"]}), Refused("class_names for own.yaml")),
    "a suite's name that is a folder": (("imagenet", {}), 4),
}


@outcomes(EVALUATED)
def test_sets_to_evaluate(given, outcome, folders, processor):
    text, options = given
    check(lambda: len(load_set(text, processor, **options)), outcome)


@pytest.mark.parametrize("text", ["dtd", "natural_shift:objectnet", "own.yaml:toys"])
def test_known_sets_have_no_captions(text, folders, processor):
    with pytest.raises(ValueError, match="has class names and no captions. Pass it in --eval_sets"):
        load_captioned_set(text, processor)
