"""Training examples of sets, streams and processor-made rows; sample ids that follow the sample; few-shot subsets."""

import datasets
import pytest
import torch
from support.captions import captioned, words
from support.tiny import CLASS_NAMES, SIZE, make_images, make_model, make_processor
from support.trainers import losses, make_trainer
from torch.utils.data import DataLoader

from hf_pmgaft import PMGAFTTrainer
from hf_pmgaft.data import (
    Collator,
    ImageClassificationDataset,
    ProcessedImages,
    StreamingImages,
    ZeroShotDataset,
    content_id,
    few_shot,
    training_examples,
)
from hf_pmgaft.models import pixel_statistics
from hf_pmgaft.training.checkpoints import data_fingerprint

# ---- Processor-made rows ----


def test_half_precision_pixel_rows_train(tmp_path, eight, processor):
    rows = [dict(row) for row in ImageClassificationDataset(eight, processor)]
    trainer = make_trainer(tmp_path, eight, max_steps=1)
    halves = [{**row, "pixel_values": row["pixel_values"].half()} for row in rows]
    by_halves = PMGAFTTrainer(
        model=make_model(),
        args=trainer.args,
        train_dataset=halves,
        processing_class=processor,
        class_names=CLASS_NAMES,
        prompt_templates="a photo of the {}",
    )
    trainer.train()
    by_halves.train()
    assert losses(by_halves) == pytest.approx(losses(trainer), rel=0.05)


def test_pixel_rows_bring_their_class_names(eight, processor):
    made = eight.map(
        lambda row: {"pixel_values": processor(images=row["image"], return_tensors="np")["pixel_values"][0]},
        remove_columns="image",
    )
    data = training_examples(made, processor)
    assert data.class_names == CLASS_NAMES
    assert Collator(processor, 4)([data[2], data[3]])["labels"].tolist() == [2, 3]

    class Own(torch.utils.data.Dataset):
        class_names = ["a", "b"]

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": 0}

    assert training_examples(Own(), processor).class_names == ["a", "b"]
    assert training_examples(Own(), processor, ["c", "d"]).class_names == ["c", "d"]


def test_processor_made_rows_pass_as_they_are(processor):
    images = make_images(3)
    made = [
        {key: value[0] for key, value in processor(text=text, images=row["image"], return_tensors="pt").items()}
        for text, row in zip(("red", "the red disc", "blue"), images, strict=True)
    ]
    lists = datasets.Dataset.from_list([{key: value.tolist() for key, value in row.items()} for row in made])
    for rows in (made, lists):
        data = training_examples(rows, processor, caption_column="caption")
        assert isinstance(data, ProcessedImages)
        data.check()
        batch = Collator(processor)([data[i] for i in range(3)])
        assert batch["input_ids"].shape == (3, 1, 5) and batch["num_captions"].tolist() == [1, 1, 1]
        assert [words(processor, ids[0]) for ids in batch["input_ids"]] == ["red", "the red disc", "blue"]
        assert batch["labels"].tolist() == [0, 1, 2]


# ---- Sample ids ----


def seen(data, workers: int, shuffle: bool = False, order=0) -> dict[int, int]:
    """Sample id -> checksum of the pixels, over one pass."""
    generator = torch.Generator().manual_seed(order)
    loader = DataLoader(
        data, 3, shuffle=shuffle, num_workers=workers, collate_fn=Collator(make_processor(), 4), generator=generator
    )
    found = {}
    for batch in loader:
        for i, pixels in zip(batch["sample_id"].tolist(), batch["pixel_values"], strict=True):
            assert i not in found
            found[i] = content_id(pixels)
    return found


def test_sample_ids_stay_with_their_images_in_any_order_and_with_workers(eight, processor):
    data = ImageClassificationDataset(eight, processor)
    first = seen(data, 0)
    assert list(first) == list(range(8)) and len(set(first.values())) == 8
    shuffled = seen(data, 2, shuffle=True, order=1)
    assert shuffled == first and list(shuffled) != list(first)


def test_sample_ids_stay_with_their_images_across_streams(eight, processor):
    first = seen(StreamingImages(eight.to_iterable_dataset(), processor), 0)
    shuffled = eight.to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=8)
    again = seen(StreamingImages(shuffled, processor), 2)
    assert again == first and len(first) == 8 and list(again) != list(first)
    images = ImageClassificationDataset(eight, processor)
    pixels_alone = [{name: row[name] for name in ("pixel_values", "labels")} for row in images]
    assert Collator(processor, 4)(pixels_alone)["sample_id"].tolist() == list(first)


def test_a_stream_is_shuffled_anew_each_epoch(eight, processor):
    data = StreamingImages(eight.to_iterable_dataset().shuffle(seed=3, buffer_size=8), processor)
    passes = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        passes.append([row["sample_id"] for row in data])
    assert passes[0] == passes[2] != passes[1] and sorted(passes[0]) == sorted(passes[1])


# ---- Few shots ----


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


# ---- Their size ----


def test_training_images_are_resized_as_those_of_evaluation(processor):
    images = make_images(8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in pixel_statistics(processor))
    evaluated = ZeroShotDataset(images, processor, resize=18)
    kept = training_examples(images, processor, resize=18)
    few = few_shot(kept, 1)
    stream = training_examples(images.to_iterable_dataset(), processor, resize=18)

    for examples in (kept, kept.cached(2**20), few, few.cached(2**20), stream):
        for row, example in enumerate(examples):
            row = row if examples is stream else example["sample_id"]
            torch.testing.assert_close(example["pixel_values"] * std + mean, evaluated[row]["images"])
    plain = training_examples(images, processor)
    assert not torch.equal(plain[0]["pixel_values"], kept[0]["pixel_values"])
    assert torch.equal(
        plain[0]["pixel_values"], training_examples(images, processor, resize=SIZE)[0]["pixel_values"]
    )  # the processor's own shortest edge


def test_a_resize_that_changes_nothing_is_refused(eight, processor):
    examples = training_examples(eight, processor, resize=18)
    assert training_examples(examples, processor) is training_examples(examples, processor, resize=18) is examples
    with pytest.raises(
        ValueError, match="resize=20 with ImageClassificationDataset examples, whose images have their size"
    ):
        training_examples(examples, processor, resize=20)
    with pytest.raises(ValueError, match=r"resize=18 with rows of \['pixel_values', 'labels'.*taken as they come"):
        training_examples([examples[0]], processor, CLASS_NAMES, resize=18)


def test_a_checkpoint_knows_the_resize_of_its_images_only_if_one_was_given(eight, processor):
    assert "resize" not in data_fingerprint(training_examples(eight, processor))
    resized = data_fingerprint(training_examples(eight, processor, resize=18))
    assert resized.pop("resize") == 18 and resized == data_fingerprint(training_examples(eight, processor))
