"""What a launch cannot mean is refused by name; the configurations that ship are run as the README says."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.paths import ROOT
from transformers import CLIPModel

from hf_pmgaft import PMGAFTConfig
from hf_pmgaft.engines import check_engine
from hf_pmgaft.training.checkpoints import newest_complete

CONFIGS = ROOT / "examples" / "accelerate_configs"
no_accelerator = pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")


def launch(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=ROOT)


def test_a_launcher_that_ran_one_process_of_several_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="asked `accelerate launch` for several processes, but it started one"):
        PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")  # an address alone is some cluster's
    PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True)


@pytest.mark.parametrize("by_launcher", [False, True])
def test_fsdp_on_the_cpu_is_refused(tmp_path, monkeypatch, by_launcher):
    if by_launcher:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="FSDP on the CPU"):
        PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True, fsdp=None if by_launcher else True)


def test_deepspeed_that_is_not_installed_is_said_when_it_is_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="deepspeed, which is not installed. Run `pip install deepspeed`"):
        PMGAFTConfig(output_dir=str(tmp_path), deepspeed=str(CONFIGS / "deepspeed_zero3.json"))


def test_fsdp_1_is_refused(tmp_path):
    with pytest.raises(ValueError, match="FSDP 1.*Pass version 2"):
        PMGAFTConfig(output_dir=str(tmp_path), fsdp=True, fsdp_config={"version": 1})


def test_fsdp_with_an_accelerate_that_resumes_it_wrongly_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_pmgaft.engines.is_accelerate_available", lambda version: False)
    with pytest.raises(ValueError, match="Install 1.15"):
        PMGAFTConfig(output_dir=str(tmp_path), fsdp=True)


def run_of(**options) -> SimpleNamespace:
    """What `check_engine` looks at in the configuration of a run, after its devices are set up."""
    defaults = {
        "deepspeed_plugin": None,
        "fsdp": None,
        "bf16": False,
        "fp16": False,
        "torch_compile": False,
        "world_size": 2,
        "attack_precision": "follow",
        "attack_stops_early": False,
        "averages_weights": False,
    }
    return SimpleNamespace(**{**defaults, **options})


def test_a_float32_attack_through_half_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match="attack_precision='fp32'"):
        check_engine(run_of(fsdp=True, bf16=True, attack_precision="fp32"))
    PMGAFTConfig(output_dir=str(tmp_path), bf16=True, attack_precision="fp32", use_cpu=True)


@pytest.mark.parametrize("engine", [{"fsdp": True}, {"fp16": True}, {"deepspeed_plugin": SimpleNamespace()}], ids=str)
def test_a_bf16_attack_where_the_engine_chooses_the_precision_is_refused(engine):
    with pytest.raises(ValueError, match="attack_precision='bf16'"):
        check_engine(run_of(attack_precision="bf16", **engine))


def test_an_attack_that_stops_early_where_processes_walk_together_is_refused():
    with pytest.raises(ValueError, match="tau in attack_kwargs"):
        check_engine(run_of(fsdp=True, attack_stops_early=True))


def test_averages_of_weights_that_no_process_holds_are_refused():
    with pytest.raises(ValueError, match="ema_decay or wise_ft under DeepSpeed or FSDP"):
        check_engine(run_of(fsdp=True, averages_weights=True))


def test_compiling_under_zero_3_is_refused():
    plugin = SimpleNamespace(zero_stage=3)
    with pytest.raises(ValueError, match="torch_compile with ZeRO-3"):
        check_engine(run_of(deepspeed_plugin=plugin, torch_compile=True))


@no_accelerator
def test_deepspeed_is_told_that_there_is_no_accelerator(tmp_path, monkeypatch):
    pytest.importorskip("deepspeed")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    code = (
        "from hf_pmgaft import PMGAFTConfig\n"
        "from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled\n"
        f"args = PMGAFTConfig(output_dir={str(tmp_path)!r}, deepspeed={{'zero_optimization': {{'stage': 3}}}})\n"
        "assert args.use_cpu and not is_deepspeed_zero3_enabled()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@no_accelerator
def test_accelerate_with_two_processes_on_the_cpu_is_refused(tmp_path):
    flags = [
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    done = launch(*flags, "examples/run_pmgaft.py", "--output_dir", str(tmp_path / "out"))
    assert done.returncode != 0 and "it started one" in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
@no_accelerator
@pytest.mark.parametrize("config", ["ddp", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3", "single"])
def test_the_configurations_run_the_script(tmp_path, config):
    if "deepspeed" in config:
        pytest.importorskip("deepspeed")
    processes = 1 if config == "single" else 2
    file = str(CONFIGS / f"{config}.yaml")
    short = {"max_steps": 3, "eval_max_samples": 4, "eval_num_steps": 2, "per_device_train_batch_size": 8 // processes}
    script = [part for name, value in short.items() for part in (f"--{name}", str(value))]
    script += ["--output_dir", str(tmp_path), "--use_cpu", "true", "--logging_steps", "1", "--report_to", "none"]
    done = launch("--config_file", file, "--num_processes", str(processes), "examples/run_pmgaft.py", *script)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "mean without animals" in done.stdout
    state = json.loads((tmp_path / "training_config.json").read_text())
    assert state["max_steps"] == 3 and (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
@no_accelerator
@pytest.mark.parametrize("config", ["ddp", "deepspeed_zero2"])
def test_two_machines_run_the_script_by_one_command_each(tmp_path, config):
    """Both are this one, which the launchers do not know."""
    if "deepspeed" in config:
        pytest.importorskip("deepspeed")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    where = ["--num_processes", "2", "--num_machines", "2", "--main_process_ip", "127.0.0.1"]
    where += ["--config_file", str(CONFIGS / f"{config}.yaml"), "--main_process_port", str(port), "--machine_rank"]
    short = {"max_steps": 3, "per_device_train_batch_size": 4, "do_eval": "false", "report_to": "none"}
    script = [part for name, value in short.items() for part in (f"--{name}", str(value))]
    script += ["--output_dir", str(tmp_path), "--use_cpu", "true", "--save_strategy", "steps", "--save_steps", "3"]
    with ThreadPoolExecutor() as machines:
        done = [machines.submit(launch, *where, str(rank), "examples/run_pmgaft.py", *script) for rank in (0, 1)]
    assert [machine.result().returncode for machine in done] == [0, 0], done[0].result().stderr[-4000:]
    assert len([*tmp_path.glob("checkpoint-3/rng_state_*.pth")]) == 2
    assert CLIPModel.from_pretrained(tmp_path).config.projection_dim > 0


@pytest.mark.slow
@no_accelerator
def test_a_deepspeed_file_runs_the_script(tmp_path):
    pytest.importorskip("deepspeed")
    short = {"max_steps": 3, "per_device_train_batch_size": 4, "do_eval": "false", "report_to": "none"}
    script = [part for name, value in short.items() for part in (f"--{name}", str(value))]
    script += ["--output_dir", str(tmp_path), "--deepspeed", str(CONFIGS / "deepspeed_zero3.json")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += ["examples/run_pmgaft.py", *script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert CLIPModel.from_pretrained(tmp_path).config.projection_dim > 0


def test_the_configurations_are_what_they_are_called():
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = {"single": "NO", "ddp": "MULTI_GPU", "fsdp2": "FSDP"} | dict.fromkeys(
        (f"deepspeed_zero{stage}" for stage in (1, 2, 3)), "DEEPSPEED"
    )
    found = {file.stem: load_config_from_file(str(file)) for file in CONFIGS.glob("*.yaml")}
    assert {name: str(config.distributed_type.value) for name, config in found.items()} == kinds
    for stage in (1, 2, 3):
        deepspeed = found[f"deepspeed_zero{stage}"].deepspeed_config
        assert (deepspeed["zero_stage"], deepspeed["deepspeed_multinode_launcher"]) == (stage, "standard")
    assert found["fsdp2"].fsdp_config["fsdp_version"] == 2


# ---- Signals ----

OURS = [sys.executable, "-m", "hf_pmgaft.cli", "train", "--num_processes", "1"]
ACCELERATES = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
ACCELERATES += ["--mixed_precision", "no", "--dynamo_backend", "no", "--cpu", "examples/run_pmgaft.py"]


def stop_after_first_step(command: list[str], folder: Path, stop: Callable[[int], None]) -> tuple[int, str]:
    """Stops a launcher after the first step of its process: its exit code, and what both have written to their end."""
    short = {"do_eval": "false", "report_to": "none", "use_cpu": "true", "disable_tqdm": "true", "logging_steps": "1"}
    command = [*command, "--output_dir", str(folder)]
    command += [word for name, value in short.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    with subprocess.Popen(command, env=environment, cwd=ROOT, **options) as launcher:
        for line in launcher.stdout:
            if "'loss'" in line:
                break
        stop(launcher.pid)
        written = launcher.stdout.read()
    return launcher.returncode, written


@pytest.mark.slow
@no_accelerator
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_our_launcher_of_one_process_reaches_that_process(tmp_path, number):
    code, written = stop_after_first_step(OURS, tmp_path, lambda pid: os.kill(pid, number))
    assert code == 128 + number and "Traceback" not in written
    newest, _ = newest_complete(tmp_path)
    last = written.splitlines()[-1]
    assert last.startswith(f"Stopped by {number.name} after step") and last.endswith(f"from {Path(newest).name}.")


@pytest.mark.slow
@no_accelerator
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_under_accelerate_saves_a_checkpoint_without_a_traceback_of_ours(tmp_path, number):
    _, written = stop_after_first_step(ACCELERATES, tmp_path, lambda pid: os.killpg(pid, number))
    newest, _ = newest_complete(tmp_path)
    assert f"Stopped by {number.name} after step" in written and f"goes on from {Path(newest).name}." in written
    assert "hf_pmgaft" not in written.partition("Traceback")[2]
