"""The embedded model with images and captions of its sets."""

import torch
from transformers import AutoProcessor, CLIPModel

from hf_pmgaft import RetrievalDataset
from hf_pmgaft.data import load_images
from support.paths import EMOJI

PGD = {"attack": "pgd", "eps": "4/255", "num_steps": 3, "loss": "margin"}


CE = {**PGD, "loss": "ce"}


def make_emoji() -> tuple:
    torch.set_num_threads(1)
    return CLIPModel.from_pretrained(EMOJI / "model"), AutoProcessor.from_pretrained(EMOJI / "model")


def make_data(processor, size: int | None = 24, **options) -> RetrievalDataset:
    images = load_images(str(EMOJI / "data"), "activities", "test")
    rows = None if size is None else range(size)
    return RetrievalDataset(images, processor, "label,tags", name="own", sample_ids=rows, **options)
