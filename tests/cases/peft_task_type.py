"""A LoraConfig with a task_type, as tutorials for CLIP have it, fails with a TypeError that prints the model."""

import os
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
from peft import LoraConfig

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, load_model

name, bad = "examples/emoji/model", 0
data = datasets.load_dataset("examples/emoji/data", "finetune", split="train").select(range(8))


def train(model, **options):
    args = PMGAFTConfig(
        tempfile.mkdtemp(),
        eps="4/255",
        max_steps=1,
        per_device_train_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        do_eval=False,
    )
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(name)
    PMGAFTTrainer(model, args, train_dataset=data, processing_class=processor, **options).train()


for kind in (None, "FEATURE_EXTRACTION", "SEQ_CLS", "CAUSAL_LM"):
    config = LoraConfig(task_type=kind, r=4, target_modules=["q_proj", "v_proj"])
    try:
        train(load_model(name), peft_config=config)
        fault, outcome = False, "trains"
    except Exception as error:
        fault = not isinstance(error, ValueError) or "task_type" not in str(error)
        outcome = f"{type(error).__name__}: {str(error)[:20]!r} ... {str(error)[-55:]!r}, {len(str(error))} characters"
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: task_type {kind}: {outcome}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
