"""A training step by one process and by two."""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType, PartialState
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from transformers import TrainerCallback

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.data import load_images
from hf_pmgaft.evaluation.tables import render

from .common import BATCH, EMOJI, SCRIPT, make_model, write


class StepTimes(TrainerCallback):
    """Seconds of each training step, data included."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [end - start for start, end in zip(self.ends[1:], self.ends[2:], strict=False)]


class NoExchange(TrainerCallback):
    """Lets DDP exchange no gradients."""

    trainer: PMGAFTTrainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.model_wrapped.register_comm_hook(None, noop_hook)


def work(args: argparse.Namespace) -> None:
    """Trains in one process of a run. The first process writes its step times and the bytes that it holds."""
    task = json.loads(args.worker)
    torch.set_num_threads(1)
    model, processor = make_model(task["model"])

    # Engine
    engine = {"use_cpu": True}
    if task["engine"] == "fsdp2":
        # Accelerate lets it run on GPUs alone; what a process holds can be seen on the CPU too.
        PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
        config = {"transformer_layer_cls_to_wrap": ["CLIPEncoderLayer"], "state_dict_type": "FULL_STATE_DICT"}
        engine = {"use_cpu": False, "fsdp": True, "fsdp_config": config}
    if task["engine"].startswith("zero"):
        # DeepSpeed's own buckets take 2 GB, whatever the model.
        engine["deepspeed"] = {
            "zero_optimization": {"stage": int(task["engine"][-1]), "reduce_bucket_size": 5_000_000},
            "train_micro_batch_size_per_gpu": "auto",
            "zero_allow_untested_optimizer": True,
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
        }

    # Run
    times = StepTimes()
    no_exchange = NoExchange()
    trainer = PMGAFTTrainer(
        model,
        PMGAFTConfig(
            output_dir=task["folder"],
            eps="4/255",
            per_device_train_batch_size=task["batch"],
            max_steps=args.steps + 2,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **engine,
        ),
        train_dataset=load_images(str(EMOJI / "data"), "finetune", "train"),
        processing_class=processor,
        prompt_templates="an emoji of {}",
        callbacks=[times, no_exchange] if task["quiet"] else [times],
    )
    no_exchange.trainer = trainer
    if trainer.accelerator.num_processes != task["processes"]:
        raise RuntimeError(f"{trainer.accelerator.num_processes} processes run instead of {task['processes']}.")
    trainer.train()

    # What it took
    if trainer.is_world_process_zero():
        storages = {}
        for item in gc.get_objects():
            if type(item) in (torch.Tensor, torch.nn.Parameter) and item.device.type == "cpu":
                storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        result = {"seconds": times.seconds()[1:], "bytes": sum(storages.values())}
        (Path(task["folder"]) / "result.json").write_text(json.dumps(result))

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    os._exit(0)  # gloo's own end hangs now and then


class Measured:
    """Medians of step times, and bytes that a process holds, by model and way."""

    def __init__(self, num_steps: int):
        self.num_steps = num_steps
        self.seconds: dict[str, dict[str, list[float]]] = {}
        self.held: dict[str, dict[str, int]] = {}

    def measure(
        self,
        model: str,
        way: str,
        engine: str,
        processes: int,
        batch: int,
        quiet: bool = False,
        num_steps: int | None = None,
    ) -> None:
        """Runs one way of training in processes of its own."""
        with tempfile.TemporaryDirectory() as folder:
            task = {"model": model, "engine": engine, "processes": processes, "batch": batch, "quiet": quiet}
            run_processes({**task, "folder": folder}, num_steps or self.num_steps)
            result = json.loads((Path(folder) / "result.json").read_text())
        self.seconds.setdefault(model, {}).setdefault(way, []).append(statistics.median(result["seconds"]))
        self.held.setdefault(model, {})[way] = result["bytes"]


def run_processes(task: dict[str, Any], num_steps: int) -> None:
    """Launches the processes of a task, each of which calls `work`.

    Raises:
        RuntimeError: if one of them fails, with the end of what it wrote.
    """
    launch = []
    if task["processes"] > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(task["processes"])]
    worker = [str(SCRIPT), "scale", "--steps", str(num_steps), "--worker", json.dumps(task)]
    command = [sys.executable, *launch, *worker]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if task["engine"] == "fsdp2":
        environment["ACCELERATE_TORCH_DEVICE"] = "cpu"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")


def run(args: argparse.Namespace) -> None:
    """Prints what a second process saves, where the rest goes, and what each process holds."""
    measured = Measured(args.steps)
    measure = measured.measure
    for _ in range(args.repeats):
        for model in args.models:
            batch = BATCH[model]
            measure(model, "one process", "none", 1, batch)
            measure(model, "two processes", "ddp", 2, batch // 2)
            measure(model, "one, half the batch", "none", 1, batch // 2)
            measure(model, "two, no exchange", "ddp", 2, batch // 2, quiet=True)
    for model in args.models:
        for engine in args.engines:
            if engine != "ddp":
                measure(model, engine, engine, 2, BATCH[model] // 2, num_steps=2)

    # Table
    medians = {
        model: {way: statistics.median(times) for way, times in ways.items()}
        for model, ways in measured.seconds.items()
    }
    rows = [["model", "way", "median s", "one process / this", "MiB held by a process"]]
    for model, ways in medians.items():
        for way, median in ways.items():
            times = f"{ways['one process'] / median:.2f}"
            rows.append([model, way, f"{median:.3f}", times, f"{measured.held[model][way] / 2**20:.0f}"])
    print(render(rows))
    write(args, seconds=measured.seconds, medians=medians, bytes=measured.held)
