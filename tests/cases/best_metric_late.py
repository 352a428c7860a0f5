"""A metric that no evaluation gives (load_best_model_at_end's own default, too) is found after training steps."""

import os
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets
from transformers import AutoProcessor

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotDataset

name = "examples/emoji/model"
data = datasets.load_dataset("examples/emoji/data", "finetune", split="train").select(range(8))
food = datasets.load_dataset("examples/emoji/data", "food", split="test").select(range(4))
processor, bad = AutoProcessor.from_pretrained(name), 0
every = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
for title, options in {
    "load_best_model_at_end": {"load_best_model_at_end": True},
    "metric_for_best_model misspelt": {"load_best_model_at_end": True, "metric_for_best_model": "robust_acc"},
    "reduce_lr_on_plateau": {"lr_scheduler_type": "reduce_lr_on_plateau"},
}.items():
    trainer = None
    try:
        args = PMGAFTConfig(
            tempfile.mkdtemp(),
            eps="4/255",
            max_steps=2,
            per_device_train_batch_size=4,
            report_to="none",
            disable_tqdm=True,
            eval_num_steps=1,
            logging_steps=1,
            **every,
            **options,
        )
        sets = {"food": ZeroShotDataset(food, processor, prompt_templates="an emoji of {}", name="food")}
        trainer = PMGAFTTrainer(name, args, train_dataset=data, eval_dataset=sets, prompt_templates="an emoji of {}")
        trainer.train()
        outcome, steps, saved = "trained", 0, []
    except Exception as error:
        outcome, steps = f"{type(error).__name__}: {str(error)[:90]}", trainer.state.global_step if trainer else 0
        saved = os.listdir(args.output_dir) if trainer else []
    bad += steps > 0
    print(f"{'WRONG' if steps else 'right'}: {title}: after {steps} steps, checkpoints {saved}; {outcome}")
print("WRONG: steps since the last checkpoint are lost" if bad else "RIGHT")
sys.exit(bool(bad))
