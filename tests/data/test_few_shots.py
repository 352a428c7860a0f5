"""Few-shot subsets: drawn by the seed, class by class, with the ids of the whole set."""

import pytest
import torch
from support.captions import captioned
from support.tiny import CLASS_NAMES, make_images

from hf_pmgaft.data import few_shot, training_examples


def shots_of(data, shots: int, seed: int = 0) -> dict[str, list[int]]:
    few = few_shot(data, shots, seed)
    rows = {}
    for row in few:
        rows.setdefault(few.class_names[row["labels"]], []).append(row["sample_id"])
    return rows


def test_each_class_has_so_many_images_with_the_ids_of_the_whole_set(processor):
    data = training_examples(make_images(32), processor)
    few = few_shot(data, 3)
    assert len(few) == 12 and len(data) == 32 and few.class_names == CLASS_NAMES
    assert [len(rows) for rows in shots_of(data, 3).values()] == [3] * 4
    for row in few:
        assert torch.equal(row["pixel_values"], data[row["sample_id"]]["pixel_values"])
        assert row["labels"] == data[row["sample_id"]]["labels"]
    few.check()


def test_the_seed_draws_and_fewer_shots_are_among_the_more(processor):
    data = training_examples(make_images(64), processor)
    assert shots_of(data, 4) == shots_of(data, 4)
    assert len({str(shots_of(data, 4, seed)) for seed in range(5)}) == 5
    fewer, more = shots_of(data, 2), shots_of(data, 4)
    assert all(set(fewer[name]) < set(more[name]) for name in CLASS_NAMES)
    assert len({tuple(rows[i] // 4 for i in range(4)) for rows in more.values()}) > 1  # no class copies another's draw


def test_other_classes_do_not_change_the_choice(processor):
    images = make_images(64)
    alone = images.filter(lambda label: label in (1, 3), input_columns="label")
    numbers = {1: 0, 3: 1}
    rows = [{"image": row["image"], "label": numbers[row["label"]]} for row in alone]
    two = shots_of(training_examples(rows, processor, [CLASS_NAMES[1], CLASS_NAMES[3]]), 4)
    four = shots_of(training_examples(images, processor), 4)
    place = [i for i in range(64) if i % 4 in (1, 3)]
    assert {name: [place[i] for i in rows] for name, rows in two.items()} == {name: four[name] for name in two}


def test_texts_transforms_and_captions_have_shots_too(processor):
    images = captioned([["red"]] * 16, labels=True)
    wanted = [row["sample_id"] for row in few_shot(training_examples(images, processor), 2)]
    texts = [{**row, "label": CLASS_NAMES[row["label"]]} for row in images]
    transformed = images.with_transform(lambda batch: batch)
    for data in (texts, transformed, images):
        few = few_shot(training_examples(data, processor, CLASS_NAMES, caption_column="caption"), 2)
        assert [row["sample_id"] for row in few] == wanted and "input_ids" in few[0]


def test_a_broken_image_of_a_subset_is_named_by_its_row_in_the_file(processor):
    rows = [dict(row) for row in make_images(8)]
    data = training_examples(rows, processor, CLASS_NAMES)
    row = few_shot(data, 1).sample_ids[-1]
    rows[row]["image"] = b"no image"
    with pytest.raises(ValueError, match=f"^1 of the rows cannot be used.*\n.*image in row {row}, "):
        few_shot(data, 1).check()


def test_shots_that_cannot_be_drawn_are_refused(processor):
    data = training_examples(make_images(8), processor)
    with pytest.raises(ValueError, match="shots=0, which leaves no image"):
        few_shot(data, 0)
    uneven = make_images(8).select(range(7))
    with pytest.raises(ValueError, match=r"shots=2, but 1 of the 4 classes have fewer images: 'yellow square' \(1\)"):
        few_shot(training_examples(uneven, processor), 2)
    with pytest.raises(ValueError, match=r"'missing' \(0\)"):
        few_shot(training_examples(make_images(8), processor, [*CLASS_NAMES, "missing"]), 2)
    with pytest.raises(ValueError, match="with a StreamingImages.*without streaming"):
        few_shot(training_examples(make_images(8).to_iterable_dataset(), processor), 1)
    with pytest.raises(ValueError, match="no label column, so there are no classes"):
        few_shot(training_examples(captioned(), processor, caption_column="caption"), 1)
