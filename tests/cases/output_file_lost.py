"""A report's folder that is not there is found after the evaluation, and figures, verdicts and table are lost."""

import os
import subprocess
import sys
import tempfile

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
work, bad = tempfile.mkdtemp(), 0
for script, flags in {
    "evaluate_robustness.py": "--eval_sets examples/emoji/data:food@test --max_samples 4 --num_steps 2 --output_file",
    "attack_llava.py": "--num_images 1 --num_steps 1 --eps 4/255 --tasks caption --output_file",
}.items():
    target = f"{work}/new/{script}.json"
    done = subprocess.run(
        [sys.executable, f"examples/{script}", *flags.split(), target], capture_output=True, text=True
    )
    computed = "img/s" in done.stderr or "it/s" in done.stderr or "s/it" in done.stderr
    lost = not os.path.exists(target) and computed
    bad += lost
    print(
        f"{script}: code {done.returncode}, computed {computed}, report written {os.path.exists(target)}, "
        f"table printed {'95 %' in done.stdout or 'tower' in done.stdout}; {done.stderr.strip().splitlines()[-1][:90]}"
    )
print("WRONG: all was computed and then lost" if bad else "RIGHT")
sys.exit(bool(bad))
