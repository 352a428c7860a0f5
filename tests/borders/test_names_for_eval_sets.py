"""Class names and columns of evaluation sets, as both commands take them."""

import datasets
import pytest
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images

from hf_pmgaft.arguments import parse_args
from hf_pmgaft.cli import evaluate, gallery, train_setup
from hf_pmgaft.cli.train_arguments import DataArguments

TINY = ["n01443537", "n01629819", "n01641577", "n01644900"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sets by what their labels are, and files of names."""
    folder = tmp_path_factory.mktemp("sets")
    images = make_images(4)
    numbered = images.cast_column("label", datasets.Value("int64"))
    numbered.to_parquet(folder / "numbers.parquet")
    numbered.to_parquet(folder / "other.parquet")
    renamed = numbered.rename_columns({"image": "photo", "label": "kind"})
    renamed.to_parquet(folder / "renamed.parquet")
    images.cast_column("label", datasets.ClassLabel(names=TINY)).to_parquet(folder / "ids.parquet")
    images.to_parquet(folder / "named.parquet")
    (folder / "names.txt").write_text("\n".join(CLASS_NAMES))
    (folder / "three.txt").write_text("red\ngreen\nblue")
    (folder / "a=b.txt").write_text("\n".join(CLASS_NAMES))
    return folder


NUMBERS, OTHER, RENAMED, IDS, NAMED = (f"{name}.parquet" for name in ("numbers", "other", "renamed", "ids", "named"))

# Sets, flags, and the class names of the last set.
CASES = {
    "a set with names": (([NAMED], ""), CLASS_NAMES),
    "a file for all": (([NUMBERS, OTHER], "--eval_class_names names.txt"), CLASS_NAMES),
    "a file for one": (([NAMED, NUMBERS], "--eval_class_names numbers=names.txt"), CLASS_NAMES),
    "one for all, another for one": (
        ([OTHER, NUMBERS], "--eval_class_names three.txt numbers=names.txt"),
        Refused("Row 3 of 'other' has the label 3, which is not among the 3 classes"),
    ),
    "a file with the sign in its name": (([NUMBERS], "--eval_class_names a=b.txt"), CLASS_NAMES),
    "names in place of those of the set": (([NAMED], "--eval_class_names names.txt"), CLASS_NAMES),
    "names in place of ids": (([IDS], "--eval_class_names names.txt"), CLASS_NAMES),
    "columns": (
        ([RENAMED], "--eval_class_names names.txt --eval_image_column photo --eval_label_column renamed=kind"),
        CLASS_NAMES,
    ),
    "ids, on purpose": (([IDS], "--accept_any_class_names"), TINY),
    "ids": (([IDS], ""), Refused("ids.parquet these are --eval_class_names, --accept_any_class_names")),
    "numbers without names": (([NUMBERS], ""), Refused("numbers.parquet that is --eval_class_names")),
    "no label column": (
        ([RENAMED], "--eval_class_names names.txt --eval_image_column photo"),
        Refused("renamed.parquet that is --eval_label_column"),
    ),
    "no image column": (([RENAMED], ""), Refused("renamed.parquet that is --eval_image_column")),
    "a misspelt column": (
        ([RENAMED], "--eval_image_column foto"),
        Refused("The data set has no image column 'foto'; it has ['photo', 'kind']"),
    ),
    "too few names": (([NUMBERS], "--eval_class_names three.txt"), Refused("Row 3 of 'numbers' has the label 3")),
    "no such file": (([NUMBERS], "--eval_class_names nomes.txt"), Refused("there is no such file, nor such a list")),
    "no such set": (([NUMBERS], "--eval_class_names numbres=names.txt"), Refused("no evaluation set 'numbres'")),
    "two for all": (([NUMBERS], "--eval_class_names names.txt three.txt"), Refused("twice for all sets")),
    "two for one": (
        ([NUMBERS], "--eval_label_column numbers=label numbers=kind"),
        Refused("twice for numbers: label and kind"),
    ),
    "a list of the package in another order": (
        ([IDS], "--eval_class_names cifar10"),
        Refused("Label 0 of the set is 'n01443537', but the list of cifar10 has 'airplane' there"),
    ),
    "a list of the package of another length": (
        ([IDS], "--eval_class_names tiny_imagenet"),
        Refused("Label 4 of the set is None, but the list of tiny_imagenet has"),
    ),
    "names for a set of a suite": (
        (["paper16:dtd"], "--eval_class_names names.txt"),
        Refused("You passed class_names for paper16:dtd, which comes with what its suite states"),
    ),
    "a column for a set of a suite": (
        (["paper16:dtd"], "--eval_label_column label"),
        Refused("You passed columns for paper16:dtd"),
    ),
}


def by_evaluate(flags, processor):
    sets, _ = evaluate.load_sets(evaluate.parse(flags), processor)
    return sets[-1].class_names


def by_train(flags, processor):
    (data_args,) = parse_args((DataArguments,), flags)
    return train_setup.load_sets(data_args.eval_sets, data_args, processor)[-1].class_names


@pytest.mark.parametrize("command", [by_evaluate, by_train])
@outcomes(CASES)
def test_both_commands_take_names_and_columns(given, outcome, command, folder, processor, monkeypatch):
    monkeypatch.chdir(folder)
    sets, flags = given
    check(lambda: command(["--eval_sets", *sets, *flags.split()], processor), outcome)


def test_the_labels_of_a_known_set_get_its_names(tmp_path, processor, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = [line for line in read("labels/tiny_imagenet.txt") if line]
    data = make_images(4).cast_column("label", datasets.Value("int64"))
    data.cast_column("label", datasets.ClassLabel(names=labels)).to_parquet("tiny.parquet")
    flags = ["--eval_sets", "tiny.parquet", "--eval_class_names", "tiny_imagenet"]
    assert by_evaluate(flags, processor) == read("class_names/tiny_imagenet.txt")

    (data_args,) = parse_args((DataArguments,), ["--dataset_name", "tiny.parquet", "--class_names", "tiny_imagenet"])
    examples = train_setup.load_training_set(data_args, processor, 0)
    assert examples.class_names == read("class_names/tiny_imagenet.txt")

    (data_args,) = parse_args((DataArguments,), ["--dataset_name", "tiny.parquet"])
    with pytest.raises(ValueError, match=r"--dataset_name tiny_imagenet.*tiny.parquet these are --class_names, --acc"):
        train_setup.load_training_set(data_args, processor, 0)
    assert train_setup.load_training_set(data_args, processor, 0, needs_labels=False).class_names == labels

    (tmp_path / "tiny_imagenet").write_text("\n".join(f"word {letter}" for letter in map(chr, range(0x4E00, 0x4EC8))))
    assert by_evaluate(flags, processor)[0] == "word 一"  # a file is nearer


def read(name):
    from hf_pmgaft.suites import FOLDER

    return (FOLDER / name).read_text().splitlines()


def test_a_head_needs_no_words(folder, processor, monkeypatch):
    monkeypatch.chdir(folder)
    flags = ["--eval_sets", IDS, "--head", "nearest_class_mean", "--support_sets", IDS]
    assert by_evaluate(flags, processor) == by_train(flags, processor) == TINY


def test_they_are_of_no_use_to_a_suite(processor):
    args = evaluate.parse(["--suite", "paper16", "--eval_class_names", "names.txt", "--eval_label_column", "label"])
    with pytest.raises(ValueError, match="You passed --eval_class_names, --eval_label_column with --suite, where"):
        evaluate.load_sets(args, processor)


def test_columns_of_captioned_sets(folder, processor, monkeypatch):
    monkeypatch.chdir(folder)
    captioned = make_images(4).add_column("caption", ["a red disc"] * 4).rename_column("image", "photo")
    captioned.to_parquet("captioned.parquet")
    with pytest.raises(ValueError, match="captioned.parquet that is --eval_image_column"):
        by_evaluate(["--eval_sets", "captioned.parquet", "--caption_column", "auto"], processor)
    column = ["--eval_image_column", "captioned=photo"]
    args = evaluate.parse(["--eval_sets", "captioned.parquet", "--caption_column", "auto", *column])
    sets, _ = evaluate.load_sets(args, processor)
    assert sets[0].image_column == "photo"
    (data_args,) = parse_args((DataArguments,), ["--retrieval_sets", "captioned.parquet", *column])
    assert train_setup.load_captioned_sets(data_args, processor)[0].image_column == "photo"


def test_the_gallery_takes_them_too(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit, match="numbers.parquet that is --eval_class_names"):
        gallery.main(["--eval_set", NUMBERS])
