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


def toy(dtype: torch.dtype = torch.float64) -> tuple[ZeroShotClassifier, torch.Tensor, torch.Tensor]:
    """The golden classifier, its images and their labels."""
    inputs = GOLDEN["inputs"]
    W1, b1, W2, b2, embeds, images = (
        double(inputs[key]).to(dtype) for key in ("W1", "b1", "W2", "b2", "class_embeds", "images")
    )

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return torch.tanh((pixels.flatten(1) - 0.5) @ W1.T + b1) @ W2.T + b2

    classifier = ZeroShotClassifier(encode, embeds, inputs["logit_scale"], image_mean=[0.0], image_std=[1.0])
    return classifier, images, torch.tensor(inputs["labels"])
