"""Measures what the package's speed is worth, against the same thing as commonly written, in one interleaved run.

    python examples/speed/benchmark.py step
    python examples/speed/benchmark.py step --all --output_file step.json
    python examples/speed/benchmark.py data
    python examples/speed/benchmark.py evaluate
    python examples/speed/benchmark.py reading
    python examples/speed/benchmark.py memory
    python examples/speed/benchmark.py slopes
    python examples/speed/benchmark.py settings
    python examples/speed/benchmark.py scale --engines ddp zero1 zero2 zero3
    python examples/speed/benchmark.py tower

step: a training step by (a) the plain loop, as commonly written: prompts encoded in every pass, `loss.backward()` in
the attack, a teacher with a graph; the same with the text cached by hand; (b) the package's trainer; a bare loop of
the arithmetic that is needed, whose distance to ours is what the trainer costs; (c) the limit, the counted operations
of the bare loop at the rate of a large matrix product. Peak memory is that of a second step in a process of its own,
above what the imports take, or on a GPU of its allocator; saved activations are what graphs hold for their backward
passes. Then where our time goes.

data: images per second from the files to the batch, beside what a step needs.

evaluate: verdicts under PGD and AutoAttack by `evaluate_robustness`, from the files on, beside (a) the plain loop, as
commonly written: every image, every step, prompts encoded in each query, `loss.backward()`; (b) the same loop with the
text cached; (c) pyautoattack's own runner and (d) that of the original, `autoattack`, where they are installed; and
with `--before FOLDER` the same by another checkout of the package. At radii at which 10, 30 and 60 % of the images
withstand PGD: images per second, passes an image, and how full batches are, while images or walks wait and in all.
With two processes: how much faster, and the time of the slowest one over the mean. `--sizes 500 2000` tells the passes
of larger sets. A `--shape` of random weights takes its own answers for labels.

reading: photographs per second that an evaluation reads from JPEG files to batches by numbers of workers, the main
process only collecting where there are some, beside what a model judges. CPU time tells more where others use the
cores, too.

scale: a training step of the embedded default and of a ViT-B/32 of random weights by one process and by two, with one
thread each and the same global batch. Where two take more than half the time of one: by one process on half the batch
(what does not shrink with it), by two that exchange nothing (cores that get in each other's way), the rest being the
exchange. And what each process holds in memory between steps, by engine.

memory: what a run of PMG-AFT holds and what each image adds, by the line through the measured peaks at a few batch
sizes, each in a process of its own; for every tuning, with and without gradient checkpointing, in float32 and bf16. On
the CPU peaks are of the process, above what the imports take; on a GPU of its allocator.

slopes: CPU time of a step of the embedded default at several numbers of attack steps, classes and images, and of
models of several sizes, with the slopes of the lines through them.

settings: CPU time, wall time and peak memory of a step under settings of threads, allocators and the processor, in
processes of their own; and under other recipes of the attack (an early stop, bf16) in turn. What runs products in bf16
is not exact.

tower: CPU time of PGD on the vision tower of the embedded LLaVA alone, beside PGD on its answers with as many steps,
and the VQA accuracy that each leaves.

Times are medians of the repeats; ratios are taken within the run, since times of two runs do not compare.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

EMOJI = Path(__file__).parents[1] / "emoji"
PARTS = ("step", "data", "evaluate", "reading", "scale", "memory", "slopes", "settings", "tower")
MODELS = ("embedded default", "ViT-B/32")
ENGINES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
# Of the part `evaluate`.
SHAPES = ("embedded default", "ViT-B/32", "ViT-L/14")
ATTACKS = ("pgd", "fast", "standard")
# Of the part `step`, which measures the first of each unless others are asked for.
METHODS = ("pmg_aft", "tecoa", "fare")
TUNINGS = ("full", "lora")
# Of the part `memory`.
TUNED = ("full", "last_blocks", "lora", "r_adapter", "deep_prompts")
# Of the part `settings`.
KINDS = ("processes", "recipes")
# What grows in the part `slopes`.
AXES = ("num_steps", "prompts", "batch_size", "model")
# Of the part `step` again, class prompts and attack steps.
PROMPTS = (25, 8, 50)
NUM_STEPS = (2, 10)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The part that a command line asks for, with its options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="{" + ",".join(PARTS) + "}")
    step, data, evaluate, reading, scale, memory, slopes, settings, tower = (
        parts.add_parser(name, allow_abbrev=False) for name in PARTS
    )

    step.add_argument("--all", action="store_true", help="Every method, tuning, number of prompts and of steps.")
    step.add_argument("--methods", nargs="+", default=METHODS[:1], choices=METHODS, help="Objectives.")
    step.add_argument("--tunings", nargs="+", default=TUNINGS[:1], choices=TUNINGS, help="What is trained.")
    step.add_argument("--prompts", nargs="+", type=int, default=PROMPTS[:1], help="Class prompts of the ViT-B/32.")
    step.add_argument("--num_steps", nargs="+", type=int, default=NUM_STEPS[:1], help="Attack steps.")
    step.add_argument("--bf16", action="store_true", help="In bf16 mixed precision instead of float32.")
    step.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="Measure memory, too.")

    data.add_argument("--workers", nargs="+", type=int, default=[0, 2], help="Worker processes that load.")
    data.add_argument("--images", type=int, default=256, help="Photographs to make.")
    data.add_argument("--epochs", type=int, default=2, help="How often each set is read in a repeat.")

    evaluate.add_argument("--shape", nargs="+", default=SHAPES[:1], choices=SHAPES, help="Models to attack.")
    evaluate.add_argument("--model", default=str(EMOJI / "model"), help="A CLIPModel in the embedded default's place.")
    evaluate.add_argument("--group", default="objects", help="Emoji group whose images and classes are used, or all.")
    evaluate.add_argument("--images", type=int, default=128, help="How many images.")
    evaluate.add_argument(
        "--batch_size", nargs="+", type=int, help="Images at once; 64 if absent, on a GPU 64, 256 and 1024."
    )
    evaluate.add_argument("--attacks", nargs="+", default=ATTACKS[:2], choices=ATTACKS, help="PGD, or AutoAttack.")
    evaluate.add_argument("--num_steps", type=int, default=50, help="Steps of PGD.")
    evaluate.add_argument("--apgd_steps", type=int, default=100, help="Steps of APGD and FAB.")
    evaluate.add_argument("--queries", type=int, default=5000, help="Queries of Square.")
    evaluate.add_argument(
        "--robust", nargs="+", type=float, default=[0.1, 0.3, 0.6], help="Shares that withstand PGD."
    )
    evaluate.add_argument("--before", metavar="FOLDER", help="Another checkout of the package, to measure in turn.")
    evaluate.add_argument("--processes", type=int, default=2, help="Processes that share the images; 1 leaves it out.")
    evaluate.add_argument(
        "--robust_first", action="store_true", help="Let processes share a set whose robust images come first."
    )
    evaluate.add_argument("--only_ours", action="store_true", help="Leave out loops and runners of others.")
    evaluate.add_argument("--sizes", nargs="*", type=int, default=[], help="Larger sets whose passes to tell.")

    reading.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], help="Worker processes that read.")
    reading.add_argument(
        "--images", type=int, default=1088, help="Photographs: a batch to start with, and those timed."
    )
    reading.add_argument("--batch_size", type=int, default=64, help="Images at once.")
    reading.add_argument("--model", default="ViT-B/32", choices=MODELS, help="Whose images they become.")

    scale.add_argument("--engines", nargs="+", default=["ddp"], choices=ENGINES, help="Engines whose memory to tell.")
    scale.add_argument("--steps", type=int, default=12, help="Training steps to time, after two to warm up.")

    memory.add_argument("--tunings", nargs="+", default=TUNED, choices=TUNED, help="What is trained.")
    memory.add_argument("--batch_sizes", nargs="+", type=int, help="Two or more, to draw a line through.")
    memory.add_argument("--gib", type=float, default=4, help="Memory to find the largest batch for.")
    for flag in ("--bf16", "--gradient_checkpointing"):
        memory.add_argument(flag, action=argparse.BooleanOptionalAction, default=True, help="Measure that, too.")

    slopes.add_argument("--axes", nargs="+", default=AXES, choices=AXES, help="What grows.")
    slopes.add_argument("--batch_size", type=int, default=2, help="Images in a step of models of several sizes.")

    settings.add_argument("--preload", nargs="*", default=[], help="Allocators' libraries, such as libjemalloc.so.2.")
    settings.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="processes: slow to start.")
    settings.add_argument("--tuning", default="full", choices=TUNED, help="What is trained.")
    settings.add_argument("--num_steps", nargs="+", type=int, default=NUM_STEPS[:1], help="Attack steps.")
    settings.add_argument("--steps", type=int, default=5, help="Steps to time in each process.")

    tower.add_argument("--images", type=int, default=25, help="Emoji, of each of which the name is asked.")
    tower.add_argument("--num_steps", type=int, default=50, help="Steps of each attack.")
    tower.add_argument("--eps", nargs="+", default=["2/255", "4/255", "8/255"], help="Radii.")

    # What several parts, or all of them, take
    for part in (step, data, settings):
        part.add_argument("--batch_size", type=int, help="Images in a step; 8 of the ViT-B/32, 64 else.")
    for part in (step, data, scale, memory, settings):
        part.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="What to train.")
    for part in (step, evaluate):
        part.add_argument("--clock", default="wall", choices=["wall", "cpu"], help="cpu: where others use the cores.")
    for part in (step, memory, evaluate):
        part.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="Whose time and memory.")
    for part in (step, scale, memory, settings, evaluate):
        part.add_argument("--worker", help=argparse.SUPPRESS)
    for part in parts.choices.values():
        part.add_argument("--repeats", type=int, default=3, help="Interleaved repeats.")
        part.add_argument("--threads", type=int, default=1, help="Threads of torch.")
        part.add_argument("--output_file", help="JSON file for the figures.")

    args = parser.parse_args(argv)
    if args.part == "step" and args.all:
        args.methods = METHODS
        args.tunings = TUNINGS
        args.prompts = PROMPTS
        args.num_steps = NUM_STEPS
    return args


def main(argv: list[str] | None = None) -> None:
    """Runs a part, or what one of its own processes was started for."""
    args = parse(argv)

    # After the options are read, so that --help is quick
    import torch

    from hf_pmgaft.files import check_output_file

    check_output_file("--output_file", args.output_file)
    part = importlib.import_module(f"benchmarks.{args.part}")
    torch.set_num_threads(args.threads)
    if "worker" in args and args.worker:
        part.work(args)
    else:
        part.run(args)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError, ImportError) as error:  # what was passed cannot work, and it says why
        sys.exit(f"error: {error}")
