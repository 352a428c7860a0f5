"""Examples become batches, with all their captions; what cannot be trained on is refused on the CPU."""

import pytest
import torch
from support.captions import CAPTIONS, captioned, words
from support.tiny import CLASS_NAMES, SIZE, make_model, make_processor
from torch.utils.data import DataLoader

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import (
    Collator,
    check_captions,
    choose_captions,
    stack_captions,
    training_examples,
)

# ---- Pixels and labels ----


def pixel_rows() -> list[dict]:
    return [{"pixel_values": torch.zeros(3, SIZE, SIZE), "labels": i % 4} for i in range(6)]


def test_broken_pixel_rows_are_named_by_their_ids_in_training_and_by_check(tmp_path, processor):
    rows = pixel_rows()
    rows[1]["pixel_values"][0, 0, 0] = float("nan")
    rows[4]["pixel_values"][2, 3, 3] = float("inf")
    data = training_examples(rows, processor, CLASS_NAMES)
    with pytest.raises(ValueError, match=r"images of rows \[1, 4\] hold NaN or infinite"):
        Collator(processor, 4)([data[i] for i in range(6)])
    with pytest.raises(ValueError, match=r"(?s)^2 of the rows cannot be used.*rows \[1\].*rows \[4\]"):
        data.check()
    with pytest.raises(ValueError, match=r"rows \[[14]"):
        PMGAFTTrainer(
            make_model(),
            PMGAFTConfig(
                output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True
            ),
            train_dataset=rows,
            class_names=CLASS_NAMES,
            processing_class=processor,
        ).train()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (255 * torch.rand(3, SIZE, SIZE), r"rows \[9\] span .* but this processor's statistics allow -1.79 to 2.15"),
        (torch.full((3, SIZE, SIZE), -2.0), "made by another processor or not normalised"),
        (torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), "torch.uint8 of shape .*not floating point"),
        (torch.zeros(1, SIZE, SIZE), r"of shape \[1, 1, 16, 16\], not floating point \[B,3,H,W\]"),
    ],
)
def test_pixels_that_the_processor_cannot_have_made_are_refused(processor, pixels, message):
    with pytest.raises(ValueError, match=message):
        Collator(processor, 4)([{"pixel_values": pixels, "labels": 0, "sample_id": 9}])


def test_pixels_in_0_1_are_all_that_a_processor_without_normalisation_makes(processor):
    plain = make_processor()
    plain.image_processor.do_normalize = False
    row = {"pixel_values": torch.rand(3, SIZE, SIZE), "labels": 0}
    Collator(plain, 4)([row])
    with pytest.raises(ValueError, match="statistics allow 0.00 to 1.00"):
        Collator(plain, 4)([{**row, "pixel_values": 2.0 * torch.rand(3, SIZE, SIZE)}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, r"The batch has no labels; it has \['pixel_values', 'sample_id'\]. Pass rows"),
        ({"labels": torch.tensor([0.0, 1.0])}, r"labels are torch.float32 of shape \[2, 2\].*one integer per row"),
        ({"labels": 4}, r"Rows \[0, 1\] have the labels \[4, 4\], but there are 4 classes"),
    ],
)
def test_batches_without_a_class_per_image_are_refused(processor, change, message):
    rows = [{**row, "sample_id": i, **change} for i, row in enumerate(pixel_rows()[:2])]
    with pytest.raises(ValueError, match=message):
        Collator(processor, 4)(rows)


def test_images_of_several_sizes_make_no_batch(processor):
    rows = [{"pixel_values": torch.zeros(3, SIZE, SIZE + i), "labels": 0, "sample_id": i} for i in range(2)]
    with pytest.raises(ValueError, match=r"rows \[0, 1\] have several shapes: \[\(3, 16, 16\), \(3, 16, 17\)\]"):
        Collator(processor, 4)(rows)


# ---- Captions ----


def batch_of(processor, rows, **options) -> dict[str, torch.Tensor]:
    data = training_examples(captioned(), processor, caption_column="caption")
    return Collator(processor, **options)([data[i] for i in rows])


def test_batches_hold_every_caption_with_its_mask_and_number(processor):
    batch = batch_of(processor, [4, 2, 3])
    assert batch["pixel_values"].shape == (3, 3, SIZE, SIZE) and batch["num_captions"].tolist() == [2, 3, 1]
    # The longest caption: start, this is the the the disc, end.
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 3, 8)
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == batch["num_captions"].dtype == torch.int64
    for row, i in enumerate([4, 2, 3]):
        padded = CAPTIONS[i] + CAPTIONS[i][:1] * (3 - len(CAPTIONS[i]))
        assert [words(processor, ids) for ids in batch["input_ids"][row]] == padded
        lengths = [len(processor.tokenizer(text)["input_ids"]) for text in padded]
        assert batch["attention_mask"][row].sum(1).tolist() == lengths
    assert batch_of(processor, [3])["input_ids"].shape == (1, 1, 6)


def test_a_caption_is_encoded_as_the_processor_would(processor):
    batch = batch_of(processor, range(6))
    wanted = processor.tokenizer([captions[0] for captions in CAPTIONS], padding=True, return_tensors="pt")
    length = wanted["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, 0, :length], wanted["input_ids"])
    assert torch.equal(batch["attention_mask"][:, 0, :length], wanted["attention_mask"])


def test_without_labels_each_image_is_a_class_of_its_own(processor):
    assert batch_of(processor, [4, 2, 3])["labels"].tolist() == [4, 2, 3]
    stream = training_examples(captioned().to_iterable_dataset(), processor, caption_column="caption")
    batch = Collator(processor)(list(stream))
    assert torch.equal(batch["labels"], batch["sample_id"])
    with pytest.raises(ValueError, match="The batch has no labels"):
        batch_of(processor, [1, 2], num_classes=4)
    with pytest.raises(ValueError, match="The batch has no labels"):
        Collator(processor)([{"pixel_values": torch.zeros(3, SIZE, SIZE)}])


def test_pixels_are_still_checked(processor):
    rows = [{"pixel_values": torch.full((3, SIZE, SIZE), 200.0), "input_ids": [0, 1], "sample_id": 5}]
    with pytest.raises(ValueError, match=r"pixel values of rows \[5\]"):
        Collator(processor)(rows)


def test_collators_of_one_s_own_may_give_one_caption_per_image(processor):
    def collate(rows):
        pixels = torch.stack([row["pixel_values"] for row in rows])
        return {"pixel_values": pixels, "input_ids": torch.stack([row["input_ids"][0, :6] for row in rows])}

    batch = batch_of(processor, [0, 3], collate=collate)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 1, 6)
    assert batch["num_captions"].tolist() == [1, 1] and len(set(batch["labels"].tolist())) == 2


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        (torch.zeros(2, 5), {}, r"torch.float32 of shape \[2, 5\].*for 2 images. Pass integers"),
        (torch.zeros(3, 5).long(), {}, r"shape \[3, 5\].*for 2 images"),
        (torch.zeros(2).long(), {}, r"shape \[2\]"),
        (torch.zeros(2, 5).long(), {"attention_mask": torch.ones(2, 4)}, r"attention mask \[2, 4\]"),
        (torch.zeros(2, 1, 5).long(), {"num_captions": torch.tensor([1, 2])}, r"num_captions=\[1, 2\].*from 1 to"),
        (torch.zeros(2, 1, 5).long(), {"num_captions": torch.tensor([0, 1])}, r"num_captions=\[0, 1\]"),
    ],
)
def test_captions_of_other_shapes_are_refused(ids, options, message):
    with pytest.raises(ValueError, match=message):
        check_captions({"pixel_values": torch.zeros(2, 3, 4, 4), "input_ids": ids, **options})


@pytest.mark.parametrize("ids", [[[1, 2], [3]], [], ["a"], [0.5]])
def test_token_ids_that_make_no_captions_are_named_by_their_row(ids):
    with pytest.raises(ValueError, match="token ids or mask of row 4 make no captions.*Pass integers"):
        stack_captions([{"input_ids": ids, "sample_id": 4}])


# ---- One caption per image and step ----


@pytest.fixture(scope="module")
def many() -> dict[str, torch.Tensor]:
    """1,200 images with one to four captions, each of one token: 10 times the image's number of captions, plus k."""
    counts = [1 + i % 4 for i in range(1200)]
    return stack_captions([{"input_ids": torch.tensor([[10 * c + k] for k in range(c)])} for c in counts])


def test_the_choice_follows_from_the_seed_in_any_batch(processor, many):
    seeds = sample_seeds(0, 3, torch.arange(1200))
    ids, mask = choose_captions(many, seeds)
    assert ids.shape == mask.shape == (1200, 1)
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0))
    shuffled = {name: value[order] for name, value in many.items()}
    assert torch.equal(choose_captions(shuffled, seeds[order])[0], ids[order])
    for rows in ([0, 1], [3], [4, 7, 2, 1]):
        small = batch_of(processor, [i % 6 for i in rows])
        large = batch_of(processor, range(6))
        some = torch.tensor([i % 6 for i in rows])
        chosen, mask = choose_captions(small, seeds[some])
        wanted, wanted_mask = choose_captions(large, seeds[:6])
        for text, attended, other, i in zip(chosen, mask, wanted_mask[some], some, strict=True):
            assert words(processor, text) == words(processor, wanted[i]) and attended.sum() == other.sum()


def test_every_caption_has_the_same_chance_and_copies_are_never_counted(many):
    chosen = choose_captions(many, sample_seeds(0, 3, torch.arange(1200)))[0][:, 0]
    for count in (1, 2, 3, 4):
        found = chosen[count - 1 :: 4] - 10 * count
        shares = torch.bincount(found, minlength=count) / 300
        assert len(shares) == count and (shares - 1 / count).abs().max() < 0.1


def test_over_steps_an_image_is_paired_with_all_its_captions(many):
    steps = [choose_captions(many, sample_seeds(0, step, torch.arange(1200)))[0] for step in range(30)]
    assert not torch.equal(steps[0], steps[1])
    assert {int(ids[3]) for ids in steps} == {40, 41, 42, 43} and {int(ids[0]) for ids in steps} == {10}


def test_the_global_random_state_is_left_alone(many):
    state = torch.random.get_rng_state()
    choose_captions(many, sample_seeds(0, 0, torch.arange(1200)))
    assert torch.equal(state, torch.random.get_rng_state())


def test_workers_and_streams_give_the_same_captions(processor):
    def seen(data, workers):
        loader = DataLoader(data, 2, num_workers=workers, collate_fn=Collator(processor))
        found = []
        for batch in loader:
            seeds = sample_seeds(0, 0, batch["sample_id"])
            found += [words(processor, ids) for ids in choose_captions(batch, seeds)[0]]
        return found

    data = training_examples(captioned(), processor, caption_column="caption")
    assert seen(data, 1) == seen(data, 0)
    stream = training_examples(captioned().to_iterable_dataset(), processor, caption_column="caption")
    assert seen(stream, 1) == seen(stream, 0)
