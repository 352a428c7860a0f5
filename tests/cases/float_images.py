"""Images as floats in [0,1] (torchvision's ToTensor) are divided by 255 once more: black, without a word."""

import os
import sys

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
import numpy as np
import torch
from transformers import AutoProcessor

from hf_pmgaft import ZeroShotDataset
from hf_pmgaft.data import training_examples

processor = AutoProcessor.from_pretrained("examples/emoji/model")
image = datasets.load_dataset("examples/emoji/data", "food", split="test")[0]["image"].convert("RGB")
array = np.asarray(image)
wrong = 0
for name, value in {
    "PIL": image,
    "torch [3,H,W] in [0,1]": torch.tensor(array).permute(2, 0, 1) / 255,
    "numpy float32 [H,W,3] in [0,1]": array.astype(np.float32) / 255,
}.items():
    rows = [{"image": value, "label": 0}, {"image": value, "label": 1}]
    try:
        mean = ZeroShotDataset(rows, processor, ["a", "b"])[0]["images"].mean().item()
        pixels = training_examples(rows, processor, ["a", "b"])[0]["pixel_values"].mean().item()
    except (ValueError, TypeError) as error:
        print(f"{name}: refused ({error})")
        continue
    expected = array.mean() / 255
    bad = abs(mean - expected) > 0.02
    wrong += bad
    print(f"{name}: mean of the image {mean:.4f} (should be {expected:.4f}), of the training pixels {pixels:.2f}")
print("WRONG: evaluated and trained on black images" if wrong else "RIGHT")
sys.exit(bool(wrong))
