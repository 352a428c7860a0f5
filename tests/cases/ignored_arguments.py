"""Arguments of TrainingArguments that compute_loss passes by: label smoothing does nothing, NEFTune crashes."""

import os
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer

data = datasets.load_dataset("examples/emoji/data", "finetune", split="train").select(range(8))


def loss(**options):
    args = PMGAFTConfig(
        tempfile.mkdtemp(),
        eps="4/255",
        objective="tecoa",
        max_steps=1,
        per_device_train_batch_size=4,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        do_eval=False,
        logging_steps=1,
        **options,
    )
    trainer = PMGAFTTrainer("examples/emoji/model", args, train_dataset=data, prompt_templates="an emoji of {}")
    trainer.train()
    return trainer.state.log_history[0]["loss"]


plain, bad = loss(), 0
for name, options in {
    "label_smoothing_factor": {"label_smoothing_factor": 0.5},
    "neftune_noise_alpha": {"neftune_noise_alpha": 5.0},
}.items():
    try:
        value = loss(**options)
        fault, outcome = value == plain, f"loss {value:.4f}, without it {plain:.4f}"
    except Exception as error:
        fault, outcome = (
            name not in str(error) or isinstance(error, AttributeError),
            f"{type(error).__name__}: {error}",
        )
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {name}: {outcome}")
print("WRONG" if bad else "RIGHT")
sys.exit(bool(bad))
