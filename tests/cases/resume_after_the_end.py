"""A run that was killed after its last checkpoint trains past max_steps when it is resumed."""

import os
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
import torch

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer

data = datasets.load_dataset("examples/emoji/data", "finetune", split="train").select(range(0, 640, 10))
with tempfile.TemporaryDirectory() as folder:

    def trainer():
        args = PMGAFTConfig(
            output_dir=folder,
            eps="4/255",
            learning_rate=4e-4,
            max_steps=4,
            save_strategy="steps",
            save_steps=2,
            per_device_train_batch_size=8,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            do_eval=False,
        )
        return PMGAFTTrainer("examples/emoji/model", args, train_dataset=data, prompt_templates="an emoji of {}")

    first = trainer()
    first.train()
    weights = {name: value.clone() for name, value in first.model.state_dict().items()}
    second = trainer()
    second.train(resume_from_checkpoint=True)  # the last checkpoint is complete: there is nothing left to train
    same = all(torch.equal(value, weights[name]) for name, value in second.model.state_dict().items())
    print(f"steps after the resumed run: {second.state.global_step} of 4; weights equal: {same}")
    right = same and second.state.global_step == 4
print("RIGHT" if right else "WRONG: it trained past the end")
sys.exit(not right)
