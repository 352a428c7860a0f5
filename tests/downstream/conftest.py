"""A checkpoint as the trainer leaves it, and pixels for it."""

from pathlib import Path

import pytest
import torch
from support.llava import equal_weights
from support.tiny import make_model
from support.trainers import make_trainer


@pytest.fixture
def pixel_values() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def robust(tmp_path_factory) -> Path:
    """A checkpoint as the trainer leaves it, after a step of training."""
    folder = tmp_path_factory.mktemp("robust")
    with torch.enable_grad():
        trainer = make_trainer(folder, max_steps=1)
        trainer.train()
    trainer.save_model()
    assert not equal_weights(trainer.model, make_model(), "vision_model.")
    return folder
