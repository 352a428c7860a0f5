"""The training script against a Hub on loopback: it pulls, trains and pushes, or says how to push later."""

import os
import subprocess
import sys

import pytest
import run_pmgaft
from support.hub_server import TOKEN, HubServer
from support.paths import ROOT
from support.tiny import make_images

from hf_pmgaft import load_model


def test_the_script_pulls_trains_and_pushes_by_the_documented_variables(tmp_path, clip_files):
    with HubServer({TOKEN: ("user", "write")}) as server:
        server.put("user/base", clip_files, private=True)
        make_images(8).to_parquet(tmp_path / "data.parquet")
        flags = (
            "--model_name_or_path user/base --dataset_name data.parquet --eval_sets data.parquet@train --max_steps 1"
        )
        flags += " --eval_num_steps 1 --per_device_train_batch_size 4 --output_dir run --push_to_hub --use_cpu"
        flags += " --hub_model_id clip --disable_tqdm true --lora_r 2 --push_merged --report_to none"
        variables = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        variables |= {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "examples" / "run_pmgaft.py"), *flags.split()]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        files = server.repos["user/clip"].files
        pictures = {"gallery.png", "robustness.png", "training_curves.png"}
        reports = {"robustness.json", "robustness_before.json"}
        assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", *reports, *pictures} <= set(files)
        assert TOKEN not in done.stdout + done.stderr
        assert not [body for body in server.bodies if TOKEN.encode() in body]
        assert server.problems == []


def test_the_script_ends_with_an_error_that_names_folder_and_command(hub, tmp_path, clip_files, impatient):
    for name, content in clip_files.items():
        (tmp_path / name).write_bytes(content)
    make_images(8).to_parquet(tmp_path / "data.parquet")
    hub.fail("PUT", "/storage/", 500, times=1000)
    flags = f"--model_name_or_path {tmp_path} --dataset_name {tmp_path}/data.parquet --max_steps 1 --do_eval false"
    flags += f" --per_device_train_batch_size 4 --output_dir {tmp_path}/run --push_to_hub --hub_model_id user/clip"
    with pytest.raises(SystemExit, match=f"(?s)^error: The push to 'user/clip' failed.*{tmp_path}/run.*hf upload"):
        run_pmgaft.main([*flags.split(), "--use_cpu", "--disable_tqdm", "true", "--report_to", "none"])
    load_model(str(tmp_path / "run"))
