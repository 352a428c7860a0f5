"""A run on a stream, resumed after its first pass over the stream, is another run (README: "goes on, bit for bit")."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets

work = tempfile.mkdtemp()
rows = datasets.load_dataset("examples/emoji/data", "finetune", split="train").select(range(12))
rows.to_parquet(f"{work}/train.parquet")  # 3 steps of 4 images make one pass


def run(folder, *more):
    command = f"""{sys.executable} examples/run_pmgaft.py --model_name_or_path examples/emoji/model --streaming true
        --dataset_name {work}/train.parquet --max_steps 6 --per_device_train_batch_size 4 --report_to none --eps 4/255
        --save_strategy steps --save_steps 1 --do_eval false --logging_steps 1 --output_dir {folder}"""
    subprocess.run([*command.split(), *more], check=True, capture_output=True)
    history = json.load(open(f"{folder}/checkpoint-6/trainer_state.json"))["log_history"]
    return [round(line["loss"], 4) for line in history if "loss" in line]


whole = run(f"{work}/whole")
shutil.copytree(f"{work}/whole", f"{work}/again")
for step in (5, 6):  # as if the run had been killed after step 4
    shutil.rmtree(f"{work}/again/checkpoint-{step}")
again = run(f"{work}/again", "--resume_from_checkpoint", "true")
print("undisturbed      ", whole)
print("resumed at step 4", again)
print("RIGHT" if whole == again else "WRONG: the resumed run saw other images after step 4")
sys.exit(whole != again)
