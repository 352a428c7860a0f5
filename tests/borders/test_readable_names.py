"""Names that mean something in a list, and nothing to a text tower."""

import datasets
import pytest
from support.borders import Refused, check, outcomes
from support.emoji import make_emoji
from support.paths import EMOJI
from support.tiny import make_images, make_model

from hf_pmgaft import AdversarialStep, PMGAFTConfig, PMGAFTTrainer, ZeroShotDataset, encode_class_names
from hf_pmgaft.data import training_examples
from hf_pmgaft.prompts import check_readable, check_synonyms, read_names, shipped_class_names, shipped_lists
from hf_pmgaft.suites import FOLDER, read_suite, shipped_suites

WNIDS = ["n01443537", "n01629819", "n01641577", "n01644900"]

REFUSED = {
    "ids of WordNet": (["n01443537", "n01629819"], "2 of the 2 class names are ids of WordNet, such as 'n01443537'"),
    "ids before words": (["n01443537 goldfish", "n01629819 salamander"], "ids of WordNet"),
    "names of synsets": (["dog.n.01", "cat.n.01"], "ids of WordNet"),
    "synonyms with commas": (
        ["great white shark, white shark, man-eater", "cat"],
        "lists of synonyms",
    ),
    "a Latin name beside the other": (["tench, Tinca tinca", "cat"], "lists of synonyms"),
    "numbers": (["0", "1", "2"], "bare numbers"),
    "numbers as floats are written": (["0.0", "1.0"], "bare numbers"),
    "files": (["img_001.jpg", "cat"], "names of files"),
    "shards": (["class_12.tar", "cat"], "names of files"),
    "pictures without an ending": (["IMG_0001", "cat"], "numbered placeholders"),
    "what transformers calls labels without names": (["LABEL_0", "LABEL_1"], "numbered placeholders"),
    "classes by number": (["class 1", "class 2"], "numbered placeholders"),
    "digests": (["9e107d9d372bb6826bd81d3542a419d6", "cat"], "hashes"),
    "UUIDs": (["550e8400-e29b-41d4-a716-446655440000", "cat"], "hashes"),
    "ids of Open Images": (["/m/0bt9lr", "/m/01yrx"], "paths"),
    "addresses": (["https://example.com/cat", "cat"], "paths"),
    "numbered folders": (["001.Black_footed_Albatross", "002.Laysan_Albatross"], "names with an index before them"),
    "a second crane": (["crane2", "dog"], "words with a digit at their end, such as 'crane2'"),
    "a tenth fish": (["fish", "fish10"], "words with a digit at their end, such as 'fish10'"),
    "a letter and a count": (["c0", "c1", "c2"], "one word and a count"),
}

TAKEN = {
    "aircraft": ["boeing 747", "747-400", "a320", "f-16", "DHC-8", "Hawk T1", "b-52"],
    "devices": ["mp3 player", "mp3", "ps5", "windows10", "iphone 5", "c3po", "3d printer"],
    "cars and arms": ["4x4", "Audi A5", "Mazda RX-8", "ak47", "mig29", "BMW3"],
    "places": ["Paris, France", "Washington, D.C.", "Rio de Janeiro, RJ, Brazil", "Trinidad and Tobago"],
    "descriptions with commas": ["lymph node, containing tumor", "salt, pepper, and oil", "red, white or blue"],
    "dots": ["St. John's wort", "no. 5", "u.s. virgin islands", "e.coli", "node.js"],
    "numbers among words": ["route 66", "2nd place medal", "type 2 diabetes", "keycap: 7", "24/7", "1950s"],
    "a number among many names": ["7", "747", *shipped_class_names("cifar10")],
    "words of the letters of hexadecimal numbers": ["facade", "decade80", "defaced", "bead"],
    "words that placeholders are made of": ["class", "object", "image", "folder", "label"],
    "other scripts": ["犬", "кошка", "می\u200cخواهم", "crème brûlée"],
    "letters": ["a", "b", "c"],
}


@outcomes({name: (names, Refused(words)) for name, (names, words) in REFUSED.items()})
def test_names_that_mean_nothing(given, outcome):
    check(lambda: check_readable(given), outcome)


@outcomes({name: (names, None) for name, names in TAKEN.items()})
def test_names_that_mean_something(given, outcome):
    check(lambda: check_readable(given), outcome)


@pytest.mark.parametrize("name", shipped_lists())
def test_the_lists_of_the_package_are_words(name):
    names = shipped_class_names(name)
    if any(entry["class_names"] == names for entry in read_suite("segmentation").values()):
        names = [synonym for synonyms in check_synonyms(names) for synonym in synonyms]
    check_readable(names)


def test_names_of_suites_and_of_emoji_are_words():
    for suite in set(shipped_suites()) - {"embedded", "segmentation"}:
        for entry in read_suite(suite).values():
            check_readable(entry["class_names"])
    for name in ("class_names", "guidance_names"):
        check_readable(read_names(EMOJI / f"data/{name}.txt"))
    for group in ("animals", "flags", "symbols"):
        check_readable(datasets.load_dataset(str(EMOJI / "data"), group, split="test").features["label"].names)


@pytest.mark.parametrize("name", ["tiny_imagenet", "imagenet", "sun397"])
def test_the_labels_of_a_known_set_are_told_with_the_way_out(name):
    labels = (FOLDER / f"labels/{name}.txt").read_text().splitlines()
    way_out = f"They are the labels of {name}, .*--dataset_name {name}.*--class_names {name}.*insist by `accept_any"
    with pytest.raises(ValueError, match=way_out):
        check_readable(labels)
    with pytest.raises(ValueError, match="Pass `class_names`, one name in words per label"):
        check_readable(labels[::-1])


# ---- Wherever names become texts ----


@pytest.fixture(scope="module")
def ids() -> datasets.Dataset:
    return make_images(8).cast_column("label", datasets.ClassLabel(names=WNIDS))


def test_sets_refuse_them_and_may_be_told_to_take_them(ids, processor):
    for make in (ZeroShotDataset, training_examples):
        with pytest.raises(ValueError, match="4 of the 4 class names are ids of WordNet"):
            make(ids, processor)
        with pytest.raises(ValueError, match="4 of the 4 class names are ids of WordNet"):
            make(make_images(8), processor, WNIDS)
        assert make(ids, processor, accept_any_class_names=True).class_names == WNIDS
    processed = training_examples(make_images(4), processor)
    rows = [processed[i] for i in range(4)]
    with pytest.raises(ValueError, match="ids of WordNet"):
        training_examples(rows, processor, WNIDS)
    assert training_examples(rows, processor, WNIDS, accept_any_class_names=True).class_names == WNIDS


def test_what_makes_no_texts_of_them_takes_them(ids, processor):
    assert training_examples(ids, processor, needs_labels=False).class_names == WNIDS
    captioned = ids.add_column("caption", ["a red disc"] * 8)
    assert training_examples(captioned, processor, caption_column="caption").class_names == WNIDS


def test_texts_are_refused_where_they_are_encoded(processor):
    model, processor = make_emoji()
    with pytest.raises(ValueError, match="ids of WordNet"):
        encode_class_names(model, processor, WNIDS)
    assert len(encode_class_names(model, processor, WNIDS, accept_any_class_names=True)) == 4
    with pytest.raises(ValueError, match="ids of WordNet"):
        AdversarialStep.of(model, processor, WNIDS)


@pytest.mark.parametrize("where", ["train_dataset", "eval_dataset", "class_names", "guidance_names"])
def test_a_trainer_refuses_them(tmp_path, ids, processor, where):
    passed = {"train_dataset": make_images(8), where: ids if where.endswith("dataset") else WNIDS}
    args = PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="4 of the 4 class names are ids of WordNet"):
        PMGAFTTrainer(make_model(), args, processing_class=processor, **passed)


def test_a_trainer_takes_them_for_an_objective_without_texts(tmp_path, ids):
    model, processor = make_emoji()
    args = PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True, objective="fare")
    trainer = PMGAFTTrainer(model, args, processing_class=processor, train_dataset=ids)
    assert trainer.class_names == WNIDS


def test_a_trainer_may_be_told_to_take_them(tmp_path, ids):
    model, processor = make_emoji()
    args = PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True)
    trainer = PMGAFTTrainer(
        model,
        args,
        processing_class=processor,
        train_dataset=ids,
        eval_dataset=ids,
        guidance_names=WNIDS,
        accept_any_class_names=True,
    )
    assert trainer.class_names == WNIDS and trainer.eval_dataset["set"].class_names == WNIDS
