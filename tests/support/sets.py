"""A small evaluation set and attacks on it, and sets with one row changed."""

import datasets

from hf_pmgaft import ZeroShotDataset
from support.tiny import make_images

CE = {"attack": "pgd", "eps": "20/255", "num_steps": 10, "loss": "ce"}
MARGIN = {**CE, "loss": "margin"}


def make_data(processor, size=40) -> ZeroShotDataset:
    return ZeroShotDataset(make_images(size, seed=9), processor, None, "a photo of the {}", name="own")


INTEGERS = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})


def replace(data, row: int, features=INTEGERS, **values) -> datasets.Dataset:
    """The set with some columns of one row replaced, without decoding any image."""
    data = data.cast_column("image", datasets.Image(decode=False))
    columns = {name: list(data[name]) for name in data.column_names}
    for name, value in values.items():
        columns[name][row] = value
    return datasets.Dataset.from_dict(columns, features=features)


def make_large(processor, size=40, edge=48) -> ZeroShotDataset:
    """The set of `make_data` in images so large that their class names can be written on them."""
    images = make_images(size, seed=9)
    pictures = [picture.resize((edge, edge)) for picture in images["image"]]
    columns = {"image": pictures, "label": list(images["label"])}
    large = datasets.Dataset.from_dict(columns, features=images.features)
    return ZeroShotDataset(large, processor, None, "a photo of the {}", name="own", native_size=True)
