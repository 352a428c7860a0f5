"""Classes whose texts are the same once they are cut to the model's length: 0 %, and training on ties, silently."""

import os
import sys

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
from transformers import AutoProcessor

from hf_pmgaft import ZeroShotDataset, evaluate_robustness, load_model

name = "examples/emoji/model"
model, processor = load_model(name), AutoProcessor.from_pretrained(name)
rows = datasets.load_dataset("examples/emoji/data", "food", split="test").select(range(3))
long = "something good to eat that grows on trees or in the ground and that people everywhere like at home " * 2
bad = 0
for kind, names, template in (
    ("long names that differ at the end", [f"{long}: {fruit}" for fruit in ("grapes", "melon", "watermelon")], "{}"),
    ("a long template", ["grapes", "melon", "watermelon"], long + "{}"),
    ("a template with doubled braces", ["grapes", "melon", "watermelon"], "an emoji of {{}}"),
):
    try:
        data = ZeroShotDataset(
            [{"image": r["image"], "label": i} for i, r in enumerate(rows)], processor, names, template
        )
        report = evaluate_robustness(model, processor, [data], progress=False)
    except ValueError as error:
        print(f"right: {kind}: refused ({str(error)[:90]})")
        continue
    bad += 1
    print(f"WRONG: {kind}: clean accuracy {report.sets[0].clean_accuracy:.0%}, flags {report.flags}")
print("WRONG: equal embeddings are refused for equal names, and here not seen" if bad else "RIGHT")
sys.exit(bool(bad))
