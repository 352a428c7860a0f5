"""Subsets of classes and rows: numbered anew, with the ids of the whole set."""

import pytest
import torch
from support.tiny import CLASS_NAMES, make_images

from hf_pmgaft import ZeroShotDataset, evaluate_robustness
from hf_pmgaft.data import few_shot, images_of_classes, keep_classes, keep_rows, split_classes, training_examples


@pytest.mark.parametrize("count", [4, 5, 37, 100])
def test_base_is_the_first_half_by_label_and_has_the_odd_class(count):
    names = [f"class {number}" for number in range(count)]
    base, new = split_classes(names)
    assert base + new == names
    assert len(base) - len(new) == count % 2


def test_classes_that_are_named_are_split_in_the_order_of_the_labels():
    assert split_classes("abcd", base=["c", "a"]) == (["a", "c"], ["b", "d"])
    assert split_classes("abcd", new=["d", "a"]) == (["b", "c"], ["a", "d"])
    assert split_classes("abcde", base=["e", "a"], new=["b", "c"]) == (["a", "e"], ["b", "c"])


def test_classes_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match="'b' as base and as new, so that new classes would be trained on"):
        split_classes("abcd", base=["a", "b"], new=["b", "c"])
    with pytest.raises(ValueError, match="classes that the set has not: 'x'"):
        split_classes("abcd", base=["a", "x"])
    with pytest.raises(ValueError, match="3 classes with 1 of them new"):
        split_classes("abc")


def test_kept_classes_are_numbered_from_zero_with_the_ids_of_the_whole_set(processor):
    data = training_examples(make_images(16), processor)
    new = keep_classes(data, CLASS_NAMES[2:])
    assert new.class_names == CLASS_NAMES[2:] and list(new.sample_ids) == [2, 3, 6, 7, 10, 11, 14, 15]
    for row in new:
        assert row["labels"] == data[row["sample_id"]]["labels"] - 2
        assert torch.equal(row["pixel_values"], data[row["sample_id"]]["pixel_values"])
    new.check()
    assert list(data.sample_ids) == list(range(16)) and data[3]["labels"] == 3

    last = keep_classes(new, CLASS_NAMES[3:])
    assert [row["labels"] for row in last] == [0] * 4 and list(last.sample_ids) == [3, 7, 11, 15]


def test_shots_of_kept_classes_are_those_of_the_whole_set(processor):
    data = training_examples(make_images(64), processor)
    whole = {row["sample_id"] for row in few_shot(data, 4, 1) if row["labels"] >= 2}
    half = few_shot(keep_classes(data, CLASS_NAMES[2:]), 4, 1)
    assert {row["sample_id"] for row in half} == whole and {row["labels"] for row in half} == {0, 1}


def test_an_evaluation_set_is_judged_among_the_kept_classes(model, processor):
    data = ZeroShotDataset(make_images(16), processor, name="shapes", prompt_templates="a photo of the {}")
    half = keep_classes(data, CLASS_NAMES[2:])
    report = evaluate_robustness(model, processor, [half], ["fgsm,eps=1/255"], progress=False)
    assert report.sets[0].num_classes == 2 and report.sets[0].num_samples == 8
    assert report.sets[0].verdicts["sample_id"] == [2, 3, 6, 7, 10, 11, 14, 15]

    # Right among two is whoever is ahead of the other one.
    images = torch.stack([data[row]["images"] for row in half.sample_ids])
    pixels = processor.image_processor.image_mean, processor.image_processor.image_std
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in pixels)
    text = processor.tokenizer([f"a photo of the {n}" for n in CLASS_NAMES[2:]], return_tensors="pt", padding=True)
    with torch.no_grad():
        predicted = model(pixel_values=(images - mean) / std, **text).logits_per_image.argmax(1)
    right = [int(label) for label in predicted == torch.tensor([0, 1] * 4)]
    assert report.sets[0].verdicts["clean"] == right


def test_rows_are_kept_by_the_cells_of_a_column(processor):
    images = make_images(8).add_column("style", ["flat", "ink"] * 4)
    for data in (training_examples(images, processor), ZeroShotDataset(images, processor)):
        ink = keep_rows(data, "style", ["ink"])
        assert list(ink.sample_ids) == [1, 3, 5, 7] and ink.class_names == CLASS_NAMES
        assert images_of_classes(ink) == [0, 2, 0, 2]
    with pytest.raises(ValueError, match="'style' is 'oil', and there are none. It is 'flat', 'ink'"):
        keep_rows(data, "style", ["oil"])
    with pytest.raises(ValueError, match="a column that the set has not"):
        keep_rows(data, "drawn", ["ink"])


def test_what_has_no_such_classes_is_refused(processor):
    data = training_examples(make_images(8), processor)
    with pytest.raises(ValueError, match="classes that the set has not: 'cat'"):
        keep_classes(data, ["cat"])
    with pytest.raises(ValueError, match="no rows of the classes 'red disc'"):
        keep_classes(training_examples(make_images(8).select([1, 2]), processor), ["red disc"])
    with pytest.raises(ValueError, match="load them without streaming"):
        keep_classes(training_examples(make_images(8).to_iterable_dataset(), processor), CLASS_NAMES[:2])
