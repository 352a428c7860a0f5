"""A model with labelled images that all ways of evaluation get to judge."""

from __future__ import annotations

from typing import Any

import torch
from datasets import ClassLabel, Dataset, concatenate_datasets
from transformers import AutoModel, AutoProcessor

from hf_pmgaft.attacks import sample_seeds
from hf_pmgaft.data import ZeroShotDataset, load_images
from hf_pmgaft.prompts import prompt_name
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

from .common import EMOJI, make_model

GROUPS = ("animals", "smileys", "food", "travel", "activities", "objects", "symbols", "flags")
TEMPLATE = "an emoji of {}"


class EvaluationCase:
    """A model, images and class names.

    A model of random weights knows no class, so its own answers are the labels.

    Args:
        case (`dict`): `shape`, one of the shapes of `make_model`; `model`, a folder in place of the embedded default;
            `group`, emoji of one group or of `all`; `images`, how many, repeated if there are fewer; `order`, if
            given, which of them comes first, second and so on.
        device (`torch.device`): Where it is computed.
    """

    def __init__(self, case: dict[str, Any], device: torch.device):
        if case["shape"] == "embedded default":
            self.processor = AutoProcessor.from_pretrained(case["model"], trust_remote_code=False)
            self.model = AutoModel.from_pretrained(case["model"], dtype=torch.float32, trust_remote_code=False)
        else:
            self.model, self.processor = make_model(case["shape"])
        self.model.eval().to(device)

        # Images and labels
        emoji = load_emoji(GROUPS if case["group"] == "all" else [case["group"]])
        self.is_repeated = case["images"] > len(emoji)
        rows = spread(case["images"], len(emoji))
        emoji = emoji.select(rows).select(case.get("order") or range(len(rows)))
        self.data = ZeroShotDataset(emoji, self.processor, None, TEMPLATE, case["group"])
        examples = [self.data[row] for row in range(len(self.data))]
        self.images = torch.stack([example["images"] for example in examples]).to(device)
        self.labels = torch.tensor([example["labels"] for example in examples], device=device)
        self.seeds = sample_seeds(0, 0, torch.arange(len(examples), device=device))

        # Texts, encoded once and as prompts
        embeds = encode_class_names(self.model, self.processor, self.data.class_names, self.data.prompt_templates)
        self.classifier = ZeroShotClassifier.from_model(self.model, self.processor, embeds)
        prompts = [TEMPLATE.format(prompt_name(name)) for name in self.data.class_names]
        self.prompts = self.processor.tokenizer(prompts, padding=True, return_tensors="pt").to(device)

        if case["shape"] != "embedded default":
            self.labels = self.predictions(case["batch_size"])
            emoji = with_labels(emoji, self.labels.tolist(), self.data.class_names)
            self.data = ZeroShotDataset(emoji, self.processor, None, TEMPLATE, case["group"])

    @torch.no_grad()
    def predictions(self, batch_size: int) -> torch.Tensor:
        """The classes that the model sees, `[N]`."""
        return torch.cat([self.classifier(images).argmax(1) for images in self.images.split(batch_size)])


def load_emoji(groups: list[str] | tuple[str, ...]) -> Dataset:
    """The test images of some groups, among the class names of all of them."""
    names: list[str] = []
    parts = []
    for group in groups:
        images = load_images(str(EMOJI / "data"), group, "test")
        labels = [len(names) + label for label in images["label"]]
        names += images.features["label"].names
        parts.append((images, labels))
    return concatenate_datasets([with_labels(images, labels, names) for images, labels in parts])


def with_labels(images: Dataset, labels: list[int], names: list[str]) -> Dataset:
    """Images with other labels."""
    labelled = images.select_columns(["image"]).add_column("label", labels)
    return labelled.cast_column("label", ClassLabel(names=names))


def spread(count: int, size: int) -> list[int]:
    """Rows of a set: so many, evenly spread, or all of them again and again.

    Example:
        >>> spread(2, size=4), spread(3, size=2)
        ([0, 2], [0, 1, 0])
    """
    if count > size:
        return [row % size for row in range(count)]
    return [row * size // count for row in range(count)]
