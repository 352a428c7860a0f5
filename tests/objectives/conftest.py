"""The golden embeddings, labels and texts."""

import pytest
import torch


@pytest.fixture
def inputs(golden):
    return {
        name: torch.tensor(value, dtype=torch.long if name == "labels" else torch.float64)
        for name, value in golden["inputs"].items()
    }
