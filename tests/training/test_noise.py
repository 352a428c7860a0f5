"""Training under normal noise: which noise images get, from what it follows, and where it is told."""

import json

import pytest
import torch
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor
from support.trainers import losses, make_trainer

from hf_pmgaft import AdversarialStep
from hf_pmgaft.hub.card import _threat
from hf_pmgaft.noise import normal_noise, sample_seeds

NOISY = {"objective": "clean", "noise_sigma": 0.5}


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    pixel_values = make_processor().image_processor(list(make_images(8)["image"]), return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixel_values, "labels": torch.arange(8) % 4, "sample_id": torch.arange(8)}


def make_step(**options) -> tuple[AdversarialStep, torch.nn.Module]:
    model = make_model()
    return AdversarialStep.of(model, make_processor(), CLASS_NAMES, eps="1/255", **options), model


def seen(batch, number: int = 0, rows: slice = slice(None), **options) -> torch.Tensor:
    """The images that the student sees in a step."""
    step, model = make_step(**options)
    return step(model, {key: value[rows] for key, value in batch.items()}, number).student.clean


def test_each_image_gets_fresh_noise_that_is_not_clipped(batch):
    clean = seen(batch, objective="clean", seed=3)
    images = seen(batch, **NOISY, seed=3)
    noise = normal_noise(sample_seeds(3, 0, batch["sample_id"]), images.shape[1:])
    torch.testing.assert_close(images, clean + 0.5 * noise)
    assert images.min() < 0 and images.max() > 1

    others = [seen(batch, 1, **NOISY, seed=3), seen(batch, **NOISY, seed=4)]
    for other in others:  # of the next step, and of another run
        correlation = torch.corrcoef(torch.stack([(other - clean).flatten(), noise.flatten()]))[0, 1]
        assert abs(correlation) < 0.1


def test_noise_follows_from_the_image_whatever_is_in_the_batch(batch):
    assert torch.equal(seen(batch, rows=slice(2, 5), **NOISY), seen(batch, **NOISY)[2:5])


def test_augmentation_comes_first_and_draws_other_numbers(batch):
    augmented = seen(batch, objective="clean", augmentation=1.0)
    both = seen(batch, augmentation=1.0, **NOISY)
    noise = normal_noise(sample_seeds(0, 0, batch["sample_id"]), both.shape[1:])
    torch.testing.assert_close(both, augmented + 0.5 * noise)


def test_noise_with_an_attack_is_refused_for_an_objective_of_one_s_own_too(batch):
    with pytest.raises(ValueError, match="noise_sigma=0.5 with the objective TeCoA"):
        make_step(objective="tecoa", noise_sigma=0.5)


def test_a_trained_model_says_under_which_noise_and_goes_on_with_it(tmp_path):
    options = {**NOISY, "max_steps": 2, "seed": 5, "data_seed": 0}
    trainer = make_trainer(tmp_path / "a", **options, save_strategy="steps", save_steps=1)
    trainer.train()
    assert losses(trainer) != losses_of(tmp_path / "b", {**options, "noise_sigma": 0.1})
    config = json.loads((tmp_path / "a" / "checkpoint-2" / "training_config.json").read_text())
    assert config["noise_sigma"] == 0.5 and config["training"]["noise_sigma"] == 0.5
    text = _threat(trainer.objective, trainer.args)
    assert text == "none: no adversarial images; normal noise of sigma 0.5 on each image"


def losses_of(folder, options) -> list[float]:
    trainer = make_trainer(folder, **options)
    trainer.train()
    return losses(trainer)
