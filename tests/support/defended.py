"""Two defences for tests: one that does nothing, and one that is known to be broken. And the toy of golden values."""

import json

import torch

from hf_pmgaft.defences import PixelDefence
from hf_pmgaft.zero_shot import ZeroShotClassifier
from support.paths import ROOT

GOLDEN = json.loads((ROOT / "tests/golden/defences.json").read_text())


class Identity(PixelDefence):
    """Leaves images as they are."""

    title = "identity"

    def purify(self, images, seeds):
        return images


class Quantise(PixelDefence):
    """Rounds pixels to `levels` steps: no gradient goes through, and the identity in its place breaks it (BPDA)."""

    title = "quantise"

    def __init__(self, classifier, *, levels: int = 8):
        super().__init__(classifier)
        self.levels = levels

    def purify(self, images, seeds):
        return (images * self.levels).round() / self.levels


def double(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def toy(
    dtype: torch.dtype = torch.float64, W1: torch.Tensor | None = None
) -> tuple[ZeroShotClassifier, torch.Tensor, torch.Tensor]:
    """The golden classifier, or one with another first layer, its images and their labels."""
    inputs = GOLDEN["inputs"]
    own, b1, W2, b2, embeds, images = (
        double(inputs[key]).to(dtype) for key in ("W1", "b1", "W2", "b2", "class_embeds", "images")
    )
    W1 = own if W1 is None else W1

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return torch.tanh((pixels.flatten(1) - 0.5) @ W1.T + b1) @ W2.T + b2

    classifier = ZeroShotClassifier(encode, embeds, inputs["logit_scale"], image_mean=[0.0], image_std=[1.0])
    return classifier, images, torch.tensor(inputs["labels"])


def loss_and_gradient(defended, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed cross-entropy of what a function makes of images, and its gradient at them."""
    point = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(defended(point), labels, reduction="sum")
    return loss.detach(), torch.autograd.grad(loss, point)[0]


def is_golden(value, golden, tolerance: float = 1e-9) -> None:
    """Asserts that values are the golden ones, to a share of the largest."""
    golden = torch.as_tensor(golden, dtype=torch.float64)
    value = torch.as_tensor(value, dtype=torch.float64)
    torch.testing.assert_close(value, golden, rtol=0, atol=tolerance * max(float(golden.abs().max()), 1e-300))


def slope(loss_fn, images: torch.Tensor, h: float = 1e-6) -> torch.Tensor:
    """The gradient of each image's loss, `[B]`, at float64 images by central differences."""
    steps = h * torch.eye(images[0].numel(), dtype=images.dtype).view(-1, *images.shape[1:])
    slopes = [(loss_fn(images + step) - loss_fn(images - step)) / (2 * h) for step in steps]
    return torch.stack(slopes, dim=1).view_as(images)
