"""Models, the machine and the output file, the same for all parts."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor, CLIPConfig, CLIPModel

SCRIPT = Path(__file__).parent.parent / "benchmark.py"
EMOJI = SCRIPT.parents[1] / "emoji"
# The true shapes, as far as they differ from transformers' defaults.
SHAPES: dict[str, dict[str, Any]] = {
    "ViT-B/32": {"vision_config": {"patch_size": 32}},
    "ViT-B/16": {"vision_config": {"patch_size": 16}},
    "ViT-L/14": {
        "vision_config": {
            "patch_size": 14,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "projection_dim": 768,
    },
}
# Images in a step; of all processes together.
BATCH = {"embedded default": 64, "ViT-B/32": 8}
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def make_model(name: str) -> tuple[CLIPModel, Any]:
    """The embedded default, or a ViT of true shape with random weights; with a processor of its image size."""
    processor = AutoProcessor.from_pretrained(str(EMOJI / "model"))
    if name == "embedded default":
        return AutoModel.from_pretrained(str(EMOJI / "model"), dtype=torch.float32), processor
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**SHAPES[name]))
    edge = model.config.vision_config.image_size
    processor.image_processor.size = {"shortest_edge": edge}
    processor.image_processor.crop_size = {"height": edge, "width": edge}
    return model, processor


def run_worker(
    args: argparse.Namespace, task: dict[str, Any], threads: int | None = None, environment: dict | None = None
) -> dict[str, Any]:
    """Runs the `work` of the same part in a process of its own, and returns what it prints about a task."""
    threads = str(threads or args.threads)
    worker = [str(SCRIPT), args.part, "--threads", threads, "--worker", json.dumps(task)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, **(environment or {})}
    done = subprocess.run([sys.executable, *worker], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(worker)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """What figures depend on: the processor, its instruction sets, threads and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    pairs = [line.partition(":") for line in reversed(lines)]  # so that of all cores the first one's stay
    processor = {key.strip(): value.strip() for key, _, value in pairs}
    flags = processor.get("flags", processor.get("Features", "")).split()
    return {
        "processor": processor.get("model name") or platform.processor() or platform.machine(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "peft")},
    }


def write(args: argparse.Namespace, **figures: Any) -> None:
    """Prints on which machine it was measured, and writes the figures into `--output_file`."""
    facts = machine()
    instruction_sets = ", ".join(facts["instruction_sets"])
    gpu = f"{facts['gpu']}; " if facts["gpu"] else ""
    print(f"{gpu}{facts['processor']} ({instruction_sets}), {facts['threads']} of {facts['cores']} cores.")

    if args.output_file:
        content = {"part": args.part, "arguments": vars(args), **figures, "machine": facts}
        file = Path(args.output_file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
