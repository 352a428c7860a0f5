"""A net whose numbers do not depend on who else is in the batch."""

import torch
from torch import nn


class Net(nn.Module):
    """Computes in float64, so that float32 logits and gradients do not depend on who else is in the batch."""

    def __init__(self, num_classes: int):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 12, 3, stride=2), nn.ReLU(), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(12 * 9, num_classes)).double().eval()

    def forward(self, x):
        return self.layers(x.double()).float()


def make(num_classes: int = 12, size: int = 12) -> tuple[Net, torch.Tensor, torch.Tensor]:
    """The net, images, and the classes that it takes them for."""
    net = Net(num_classes)
    images = torch.rand(size, 3, 16, 16)
    with torch.no_grad():
        return net, images, net(images).argmax(1)
