"""Runs that would train nothing are refused before anything is computed."""

import logging

from support.borders import Refused, check, outcomes
from support.tiny import make_images
from support.trainers import make_trainer

DROPPED = Refused("which drops all of them, so nothing would be trained")
CASES = {
    "as many images as a batch": ({"per_device_train_batch_size": 32, "dataloader_drop_last": True}, None),
    "fewer than a batch, which is kept": ({"per_device_train_batch_size": 64}, None),
    "fewer than a batch": ({"per_device_train_batch_size": 33, "dataloader_drop_last": True}, DROPPED),
    "fewer than a batch, by epochs": (
        *({"per_device_train_batch_size": 64, "dataloader_drop_last": True, "max_steps": -1},),
        DROPPED,
    ),
    "fewer batches than a step accumulates": ({"gradient_accumulation_steps": 16, "dataloader_drop_last": True}, None),
    "an image": ({"images": 1}, None),
    "no step": ({"max_steps": 0}, Refused("You passed max_steps=0")),
    "no epoch": ({"max_steps": -1, "num_train_epochs": 0}, Refused("You passed num_train_epochs=0")),
    "a negative epoch": ({"max_steps": -1, "num_train_epochs": -1}, Refused("You passed num_train_epochs=-1")),
    "part of an epoch": ({"max_steps": -1, "num_train_epochs": 0.1}, None),
    "steps, which win over epochs": ({"max_steps": 1, "num_train_epochs": 0}, None),
    "a learning rate of 0": ({"learning_rate": 0.0}, None),
}


@outcomes(CASES)
def test_lengths_of_training(given, outcome, tmp_path):
    options = dict(given)
    images = make_images(options.pop("images", 32))
    trainer = make_trainer(tmp_path, images, **options)
    check(trainer.check_training, outcome)


def test_frozen_weights_and_a_missing_set_are_refused(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.model.requires_grad_(False)
    check(trainer.check_training, Refused("of which no weight is trained"))
    trainer.train_dataset = None
    check(trainer.check_training, Refused("There is nothing to train on"))


def test_a_learning_rate_of_zero_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        make_trainer(tmp_path, learning_rate=0.0).check_training()
    assert "no weight moves" in caplog.text
