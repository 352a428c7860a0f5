"""Fewer images than a batch with dataloader_drop_last: no step is made, and the script reports a robust checkpoint."""

import os
import subprocess
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets

work = tempfile.mkdtemp()
rows = datasets.load_dataset("examples/emoji/data", "finetune", split="train").select(range(8))
rows.to_parquet(f"{work}/train.parquet")
bad = 0
for length in ("--max_steps 2", "--num_train_epochs 1"):
    command = f"""{sys.executable} examples/run_pmgaft.py --model_name_or_path examples/emoji/model --do_eval false
        --dataset_name {work}/train.parquet {length} --per_device_train_batch_size 64 --dataloader_drop_last true
        --report_to none --save_strategy no --output_dir {work}/out"""
    done = subprocess.run(command.split(), capture_output=True, text=True)
    last = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-1]
    fault = done.returncode == 0 or "max_steps" in last
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {length}: code {done.returncode}; {last[:150]}")
print("WRONG: nothing was trained" if bad else "RIGHT")
sys.exit(bool(bad))
