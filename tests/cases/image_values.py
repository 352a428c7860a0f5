"""Values of an image column that are no image as the package knows it: obscure messages, or the first of several."""

import io
import os
import pathlib
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
import numpy as np
import torch
from transformers import AutoProcessor

from hf_pmgaft import ZeroShotDataset

processor = AutoProcessor.from_pretrained("examples/emoji/model")
image = datasets.load_dataset("examples/emoji/data", "food", split="test")[0]["image"].convert("RGB")
file, bad = pathlib.Path(tempfile.mkdtemp()) / "a.png", 0
image.save(file)


def read(value):
    return ZeroShotDataset([{"image": value, "label": 0}] * 2, processor, ["a", "b"])[0]["images"]


right = read(image)
for name, value in {
    "pathlib.Path": file,
    "BytesIO": io.BytesIO(file.read_bytes()),
    "bytearray": bytearray(file.read_bytes()),
    "nested lists": np.asarray(image).tolist(),
    "two images": [image, image.rotate(90)],
}.items():
    try:
        same = torch.equal(read(value), right)
        fault, outcome = name == "two images" or not same, "the first is taken" if name == "two images" else "read"
    except ValueError as error:
        fault, outcome = "only a single or a list" in str(error), str(error)[:150]
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {name}: {outcome}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
