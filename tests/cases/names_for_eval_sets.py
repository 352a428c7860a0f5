"""Sets whose labels are numbers: --class_names names those of training, nothing those of evaluation; the error asks
for `class_names` all the same."""

import os
import subprocess
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
import datasets

work, bad = tempfile.mkdtemp(), 0
rows = datasets.load_dataset("examples/emoji/data", "food", split="test").select(range(8))
names = rows.features["label"].names
rows = rows.cast_column("label", datasets.Value("int64"))
rows.to_parquet(f"{work}/train.parquet"), rows.to_parquet(f"{work}/test.parquet")
open(f"{work}/names.txt", "w").write("\n".join(names) + "\n")
for script, flags in {
    "run_pmgaft.py": f"""--model_name_or_path examples/emoji/model --dataset_name {work}/train.parquet --class_names
        {work}/names.txt --eval_sets {work}/test.parquet --max_steps 1 --per_device_train_batch_size 4 --report_to none
        --eval_num_steps 1 --eval_max_samples 2 --save_strategy no --output_dir {work}/out""",
    "evaluate_robustness.py": f"--eval_sets {work}/test.parquet --num_steps 1 --max_samples 2",
}.items():
    done = subprocess.run([sys.executable, f"examples/{script}", *flags.split()], capture_output=True, text=True)
    last = (done.stderr.strip() or "done").splitlines()[-1]
    fault = done.returncode != 0 and "--" not in last  # an option of the script that helps
    bad += fault
    print(f"{'WRONG' if fault else 'right'}: {script}: code {done.returncode}; {last[:160]}")
print("WRONG: the error names no option of the script that helps" if bad else "RIGHT")
sys.exit(bool(bad))
