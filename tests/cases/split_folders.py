"""A folder with train/ and test/ and no classes below: `test` and `train` become the classes."""

import os
import pathlib
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
from transformers import AutoProcessor

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotDataset
from hf_pmgaft.data import load_images

folder, bad = pathlib.Path(tempfile.mkdtemp()), 0
rows = datasets.load_dataset("examples/emoji/data", "food", split="test").select(range(4))
for split in ("train", "test"):
    (folder / split).mkdir()
    for i, row in enumerate(rows):
        row["image"].save(folder / split / f"{i}.png")
try:
    data = ZeroShotDataset(
        load_images(str(folder), None, "test"), AutoProcessor.from_pretrained("examples/emoji/model")
    )
    bad += 1
    print(
        "WRONG: evaluates zero-shot between the classes",
        data.class_names,
        "with the labels",
        [r["labels"] for r in data],
    )
except ValueError as error:
    print("right:", error)
try:
    args = PMGAFTConfig(
        tempfile.mkdtemp(),
        objective="fare",
        max_steps=1,
        per_device_train_batch_size=4,
        do_eval=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    PMGAFTTrainer("examples/emoji/model", args, train_dataset=load_images(str(folder), None, "train")).train()
    print("right: FARE, which needs no labels, trains on the folder")
except ValueError as error:
    bad += 1
    print("WRONG: FARE, which needs no labels, refuses the folder:", error)
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
