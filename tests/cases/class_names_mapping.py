"""`class_names` takes what is no list: of `id2label` the keys, of a dict or a set whatever order they stand in."""

import os
import sys

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
from transformers import AutoProcessor

from hf_pmgaft import ZeroShotDataset

processor = AutoProcessor.from_pretrained("examples/emoji/model")
image = datasets.load_dataset("examples/emoji/data", "food", split="test")[0]["image"]
rows, bad = [{"image": image, "label": 0}, {"image": image, "label": 1}], 0
for name, given in {
    "id2label as JSON has it": {"0": "cat", "1": "dog"},
    "id2label of a configuration": {0: "cat", 1: "dog"},
    "label2id in another order": {"dog": 1, "cat": 0},
    "a set": {"cat", "dog"},
}.items():
    try:
        names = ZeroShotDataset(rows, processor, given).class_names
        fault, outcome = name == "a set" or names != ["cat", "dog"], f"taken as {names}"
    except (ValueError, TypeError) as error:
        fault, outcome = "empty" in str(error), str(error)
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {name}: {outcome}")
print("WRONG: labels meet other names than the user's" if bad else "RIGHT")
sys.exit(bool(bad))
