"""A small evaluation set and attacks on it."""

from hf_pmgaft import ZeroShotDataset
from support.tiny import make_images

CE = {"attack": "pgd", "eps": "20/255", "num_steps": 10, "loss": "ce"}
MARGIN = {**CE, "loss": "margin"}


def make_data(processor, size=40) -> ZeroShotDataset:
    return ZeroShotDataset(make_images(size, seed=9), processor, None, "a photo of the {}", name="own")
