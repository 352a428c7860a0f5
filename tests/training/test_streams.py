"""Streams: a pass goes on where it was left, to the bit, and what gives no step is refused before."""

import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from support.tiny import make_images, make_processor
from support.trainers import losses, make_trainer
from transformers import TrainerCallback

from hf_pmgaft.data import StreamingImages, load_images, training_examples

NUM_STEPS = 7
# 18 images in three files: a pass has batches of 8, 8 and 2 images.
KINDS = {
    "in order": {},
    "shuffled": {"buffer": 6},
    "shuffled, the last batch left out": {"buffer": 6, "dataloader_drop_last": True},
    "two workers": {"buffer": 6, "dataloader_num_workers": 2, "per_device_train_batch_size": 4},
    "two workers that stay": {"buffer": 6, "dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "accumulation with a rest": {"buffer": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "each process for itself": {"buffer": 6, "accelerator_config": {"dispatch_batches": False}},
    "a perturbation that each pass begins anew": {"attack": "shared", "learning_rate": 0.0},
}
QUICK = {"in order": (3, 5), "two workers": (5,), "accumulation with a rest": (5,)}


def stream(buffer=None, rows=18, shards=3):
    images = StreamingImages(make_images(rows).to_iterable_dataset(num_shards=shards), make_processor())
    return images if buffer is None else images.shuffled(seed=3, buffer_size=buffer)


def start(folder, buffer=None, rows=18, shards=3, **options):
    options = {"max_steps": NUM_STEPS, "save_strategy": "steps", "save_steps": 1, "augmentation": 0.5, **options}
    return make_trainer(folder, stream(buffer, rows, shards), **options)


def resume(whole, step, folder, **options):
    """Goes on as if the run had been killed after a step."""
    name = f"checkpoint-{step}"
    shutil.copytree(Path(whole.args.output_dir) / name, folder / name)
    resumed = start(folder, **options)
    resumed.train(resume_from_checkpoint=True)
    return resumed


def assert_same(resumed, whole):
    assert losses(resumed) == losses(whole)
    weights = whole.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())
    assert resumed.passes.position(NUM_STEPS).tolist() == whole.passes.position(NUM_STEPS).tolist()


@pytest.mark.parametrize(("kind", "steps"), QUICK.items(), ids=list(QUICK))
def test_a_resumed_stream_goes_on_to_the_bit_in_any_pass(tmp_path, kind, steps):
    whole = start(tmp_path / "whole", **KINDS[kind])
    whole.train()
    assert whole.passes.number >= 1 and len(set(losses(whole))) == NUM_STEPS
    for step in steps:
        assert_same(resume(whole, step, tmp_path / str(step), **KINDS[kind]), whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_stream_goes_on_to_the_bit_from_any_step(tmp_path, kind):
    whole = start(tmp_path / "whole", **KINDS[kind])
    whole.train()
    for step in range(1, NUM_STEPS):
        assert_same(resume(whole, step, tmp_path / str(step), **KINDS[kind]), whole)


def test_a_stream_that_sigterm_stopped_in_its_second_pass_goes_on(tmp_path):
    class Terminate(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    options = {"buffer": 6, "save_strategy": "epoch"}
    whole = start(tmp_path / "whole", **options)
    whole.train()
    stopped = start(tmp_path / "stopped", **options, callbacks=[Terminate()])
    stopped.train()
    assert stopped.interrupted and stopped.passes.position(5).tolist() == [1, 2]
    resumed = start(tmp_path / "stopped", **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, whole)


def test_rows_that_were_trained_on_are_not_decoded_again(tmp_path):
    whole = start(tmp_path / "whole", rows=64)
    whole.train()
    resumed = start(tmp_path / "whole", rows=64)
    decoded, example = [], resumed.train_dataset.example
    resumed.train_dataset.example = lambda row, position: decoded.append(position) or example(row, position)
    resumed.train(resume_from_checkpoint=tmp_path / "whole" / "checkpoint-5")
    # The first batch, which may be needed at the end, and what no checkpoint has seen; 5 batches are 40 rows.
    assert [int(position.split()[0]) for position in decoded][:16] == [*range(8), *range(40, 48)]
    assert losses(resumed) == losses(whole)


def test_passes_are_shuffled_by_seed_and_number():
    def order(seed, epoch):
        rows = StreamingImages(make_images(18).to_iterable_dataset(), make_processor()).shuffled(seed, 6)
        rows.set_epoch(epoch)
        return [row["sample_id"] for row in rows]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert orders[0] == order(0, 0) and len({str(ids) for ids in orders}) == 4
    assert len({str(sorted(ids)) for ids in orders}) == 1


def test_row_groups_of_one_sorted_file_are_mixed(tmp_path):
    rows = make_images(40).sort("label")
    rows.to_parquet(tmp_path / "train.parquet", batch_size=4)
    loaded = load_images(str(tmp_path / "train.parquet"), streaming=True)
    images = StreamingImages(loaded, make_processor())
    assert len({row["labels"] for row in list(images)[:10]}) == 1
    if not hasattr(loaded, "reshard") or loaded.reshard().num_shards == 1:
        pytest.skip("this version of datasets shuffles files alone, not their row groups")
    assert len({row["labels"] for row in list(images.shuffled(0, 10))[:10]}) > 2


SETTINGS = {
    "another seed of the order": ({"buffer": 6}, {"buffer": None}, "stream.order"),
    "other rows": ({}, {"rows": 20, "shards": 2}, "stream.first_rows"),
    "another batch": ({}, {"per_device_train_batch_size": 6}, "images_per_step: 8 there, 6 now"),
    "workers": ({}, {"dataloader_num_workers": 2}, "workers: 0 there, 2 now"),
    "the last batch left out": ({}, {"dataloader_drop_last": True}, "drop_last: False there, True now"),
}


@pytest.mark.parametrize(("before", "now", "words"), SETTINGS.values(), ids=list(SETTINGS))
def test_a_stream_that_would_go_on_with_other_images_is_refused(tmp_path, before, now, words):
    start(tmp_path, **{"max_steps": 1, **before}).train()
    with pytest.raises(ValueError, match=words):
        now = {"max_steps": 2, **now}
        if "rows" in now:
            other = StreamingImages(make_images(18, seed=5).to_iterable_dataset(num_shards=3), make_processor())
            trainer = make_trainer(tmp_path, other, max_steps=2, augmentation=0.5)
        else:
            trainer = start(tmp_path, **now)
        trainer.train(resume_from_checkpoint=True)


TOO_SHORT = {
    "fewer images than a batch": {"rows": 7, "shards": 1, "dataloader_drop_last": True},
    "fewer batches than a step accumulates": {"rows": 18, "gradient_accumulation_steps": 4},
    "workers of whom none fills a batch": {
        "rows": 12,
        "shards": 2,
        "dataloader_num_workers": 2,
        "dataloader_drop_last": True,
    },
    "each process for itself": {
        "rows": 7,
        "shards": 1,
        "dataloader_drop_last": True,
        "accelerator_config": {"dispatch_batches": False},
    },
}


@pytest.mark.parametrize("options", TOO_SHORT.values(), ids=list(TOO_SHORT))
def test_a_stream_that_gives_no_step_is_refused_before_training(tmp_path, options):
    with pytest.raises(ValueError, match="The stream gives no step of .* images .*, so nothing would be trained"):
        start(tmp_path, **options)


def test_an_empty_stream_is_refused_before_training(tmp_path):
    images = make_images(8).to_iterable_dataset().filter(lambda row: False)
    with pytest.raises(ValueError, match="The stream has no rows, so there is nothing to train on"):
        make_trainer(tmp_path, images)


class Pixels(torch.utils.data.IterableDataset):
    """Rows that a processor has made, to be read once or again."""

    class_names = make_images(1).features["label"].names

    def __init__(self, rows, again=True):
        data = training_examples(make_images(max(rows, 1)), make_processor())
        self.rows = [{name: data[i][name] for name in ("pixel_values", "labels")} for i in range(rows)]
        self.again = again

    def __iter__(self):
        yield from self.rows
        if not self.again:
            self.rows = []


def test_a_stream_that_can_be_read_once_ends_in_an_error_and_not_in_silence(tmp_path):
    make_trainer(tmp_path, Pixels(16, again=False), max_steps=2).train()
    with pytest.raises(ValueError, match="Pass 1 over the stream gives no step of 8 images"):
        make_trainer(tmp_path, Pixels(16, again=False), max_steps=3).train()
    for options in ({"gradient_accumulation_steps": 3}, {}):
        with pytest.raises(ValueError, match="Pass 0 over the stream gives no step of (8|24) images"):
            make_trainer(tmp_path, Pixels(16 if options else 0), max_steps=3, **options).train()


def test_the_last_images_of_a_stream_that_fill_no_batch_are_left_out_on_request(tmp_path):
    runs = []
    for rows, drop_last in ((16, False), (18, True), (18, False)):
        images = make_images(rows).to_iterable_dataset()
        runs.append(make_trainer(tmp_path, images, max_steps=4, dataloader_drop_last=drop_last))
        runs[-1].train()
    assert losses(runs[0]) == losses(runs[1]) != losses(runs[2])
    with pytest.raises(ValueError, match="dataloader_drop_last with a stream of pixel_values"):
        make_trainer(tmp_path, Pixels(16), dataloader_drop_last=True)


def test_a_rest_that_fills_no_step_changes_nothing(tmp_path):
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 3}
    runs = []
    for rows in (16, 20):  # of which the last four are a rest
        runs.append(make_trainer(tmp_path, make_images(rows).to_iterable_dataset(), **options))
        runs[-1].train()
    assert losses(runs[0]) == losses(runs[1])


def test_a_sorted_stream_is_named_unless_it_is_mixed(tmp_path, caplog):
    rows = make_images(40).sort("label")
    words = "the first 40 rows hold 4 classes in blocks"
    for buffer, shards, is_named in ((None, 1, True), (8, 1, True), (64, 1, False), (8, 4, False)):
        caplog.clear()
        images = StreamingImages(rows.to_iterable_dataset(num_shards=shards), make_processor())
        with caplog.at_level(logging.WARNING):
            make_trainer(tmp_path, images if buffer is None else images.shuffled(0, buffer))
        assert (words in caplog.text) == is_named, (buffer, shards)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        make_trainer(tmp_path, make_images(40).to_iterable_dataset())
        assert "sorted" not in caplog.text


def test_what_cannot_be_shuffled_is_refused():
    images = StreamingImages(make_images(4).to_iterable_dataset(), make_processor())
    with pytest.raises(ValueError, match="shuffle_buffer=-1, from which no row can be drawn"):
        images.shuffled(0, -1)
