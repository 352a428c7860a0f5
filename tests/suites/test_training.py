"""Training sets by their names: Tiny ImageNet is trained on by words and not by WordNet ids."""

import datasets
import pytest
from support.hub_sets import put_sets
from support.tiny import CLASS_NAMES, make_images

from hf_pmgaft.prompts import prompt_name
from hf_pmgaft.suites import load_training_set, read_suite, training_templates


def test_tiny_imagenet_by_name_is_trained_on_by_its_words(hub, processor):
    put_sets(hub, ["tiny_imagenet"], most=6)
    assert load_training_set("tiny_imagenet", processor, resize=64).resize == 64
    examples = load_training_set("tiny_imagenet", processor)
    assert examples.resize == round(256 / 224 * 16) and len(examples) == 6 and examples[1]["labels"] == 1
    (template,) = training_templates("tiny_imagenet")
    assert template.format(prompt_name(examples.class_names[0])) == "This is a photo of a goldfish"
    assert examples.class_names == read_suite("paper16")["tiny_imagenet"]["class_names"]


def test_a_known_set_is_streamed_unless_its_labels_are_numbered_anew(hub, processor):
    put_sets(hub, ["cifar100", "caltech256"], most=3)
    stream = load_training_set("cifar100", processor, streaming=True)
    assert [row["labels"] for row in stream] == [0, 1, 2] and stream.class_names[26] == "crab"
    with pytest.raises(ValueError, match="'caltech256' as a stream, but its labels are numbered anew"):
        load_training_set("caltech256@train", processor, streaming=True)


def test_a_known_set_in_another_order_is_refused(hub, tmp_path, processor):
    names = read_suite("paper16")["dtd"]["class_names"]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names[::-1])})
    rows = datasets.Dataset.from_dict({"image": [make_images(1)[0]["image"]], "label": [0]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    hub.put("datasets/tanganke/dtd", {"train.parquet": (tmp_path / "train.parquet").read_bytes()})
    with pytest.raises(ValueError, match="Label 0 of 'dtd' is 'zigzagged', but 'banded'"):
        load_training_set("dtd", processor)


@pytest.mark.parametrize("option", ["class_names", "image_column", "label_column"])
def test_what_a_suite_states_is_not_stated_again(processor, option):
    with pytest.raises(ValueError, match=f"{option} for paper16:dtd, which comes with what its suite states"):
        load_training_set("dtd", processor, **{option: "x"})


def test_other_sets_are_trained_on_as_before(tmp_path, monkeypatch, processor):
    monkeypatch.chdir(tmp_path)
    make_images(8).rename_column("label", "kind").save_to_disk("shapes")
    examples = load_training_set("shapes", processor, label_column="kind", class_names=["a", "b", "c", "d"])
    assert (len(examples), examples.class_names) == (8, ["a", "b", "c", "d"])
    assert load_training_set("shapes", processor, label_column="kind").class_names == CLASS_NAMES
