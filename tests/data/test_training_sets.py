"""Training examples of sets, streams and processor-made rows; sample ids that follow the sample; few-shot subsets."""

import datasets
import pytest
import torch
from support.captions import words
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
