"""A small net that attacks of every kind can be tried on."""

import pytest
import torch
from torch import nn


@pytest.fixture
def small():
    """A small convolutional net with dropout and batch norm, and images."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(512, 5)
    )
    for parameter in net.parameters():
        parameter.data.mul_(2)
    return net.eval(), torch.rand(8, 3, 8, 8), torch.arange(8) % 5
