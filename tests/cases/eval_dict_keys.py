"""The keys of an eval_dataset dict do not name the metrics where its values are ZeroShotDatasets."""

import os
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
from transformers import AutoProcessor

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotDataset

name, bad = "examples/emoji/model", 0
processor = AutoProcessor.from_pretrained(name)
data = datasets.load_dataset("examples/emoji/data", "finetune", split="train").select(range(8))
food = datasets.load_dataset("examples/emoji/data", "food", split="test").select(range(4))


def zero_shot():
    return ZeroShotDataset(food, processor, prompt_templates="an emoji of {}")


for title, sets in {
    "plain sets": {"mine": food},
    "a ZeroShotDataset": {"mine": zero_shot()},
    "two of them": {"mine": zero_shot(), "other": zero_shot()},
}.items():
    args = PMGAFTConfig(
        tempfile.mkdtemp(), eps="4/255", max_steps=1, report_to="none", disable_tqdm=True, eval_num_steps=1
    )
    trainer = PMGAFTTrainer(name, args, train_dataset=data, eval_dataset=sets, prompt_templates="an emoji of {}")
    try:
        outcome = sorted(key for key in trainer.evaluate() if key.endswith("robust_accuracy"))
        fault = "eval_mine_robust_accuracy" not in outcome
    except ValueError as error:
        fault, outcome = True, str(error)
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {title}: {outcome}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
