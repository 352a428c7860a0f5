"""Kills `pmgaft train` at random moments until it has gone through, and prints what it went through.

    PYTHONPATH=.:tests python tests/support/chaos.py FOLDER --kills 20 --processes 2

Each time all processes are killed (kill -9) at some moment, or in the middle of a checkpoint; or one of them is, and
then, as by a launcher, the others; or all get SIGTERM in the middle of training, which must end them by themselves.
Everything is imported once, and each run is a fork.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is there

import matplotlib.pyplot  # noqa: E402, F401
import torch  # noqa: E402

from hf_pmgaft.cli import train  # noqa: E402
from hf_pmgaft.training import checkpoints  # noqa: E402
from support.tiny import make_images, make_model, make_processor  # noqa: E402

STEPS = 240
HOWS = ("all", "while saving", "sigterm", "one")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def make_inputs(folder: Path) -> None:
    make_model().save_pretrained(folder / "model")
    make_processor().save_pretrained(folder / "model")
    make_images(32).to_parquet(folder / "train.parquet")
    make_images(24, seed=9).to_parquet(folder / "test.parquet")


def command_line(inputs: Path, output: Path, processes: int) -> list[str]:
    options = {
        "model_name_or_path": inputs / "model",
        "dataset_name": inputs / "train.parquet",
        "eval_sets": inputs / "test.parquet",
        "output_dir": output,
        "max_steps": STEPS,
        "save_steps": 2,
        "save_total_limit": 2,
        "per_device_train_batch_size": 8 // processes,
        "learning_rate": 2e-3,
        "augmentation": 0.5,
        "lora_r": 4,
        "lora_dropout": 0.2,
        "eps": "8/255",
        "eval_num_steps": 5,
        "use_cpu": "true",
        "disable_tqdm": "true",
        "report_to": "none",
    }
    line = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return line + ["--resume_from_checkpoint", "true"] * any(map(complete, output.glob("checkpoint-*")))


def complete(folder: Path) -> bool:
    return checkpoints.defect(folder) is None


def die_while_saving(count: int) -> None:
    """The process kills itself in the middle of so manieth a checkpoint."""
    written = 0
    save = torch.save

    def save_or_die(*args, **kwargs):
        nonlocal written
        save(*args, **kwargs)
        written += 1
        if written == count:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_or_die


def run(inputs: Path, output: Path, rank: int, processes: int, port: int, saves: int) -> None:
    """One process of the script, in a fork; never returns."""
    code = 1
    if saves:
        die_while_saving(saves)
    try:
        log = os.open(output.parent / f"{output.name}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        if processes > 1:
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
            os.environ.update(dict(zip(names, map(str, (rank, rank, processes, processes, port)), strict=True)))
            os.environ["MASTER_ADDR"] = "127.0.0.1"
        torch.set_num_threads(1)
        train.main(command_line(inputs, output, processes))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 2
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def start(inputs: Path, output: Path, processes: int, saves: int = 0) -> list[int]:
    sys.stdout.flush()
    port, children = free_port(), []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            run(inputs, output, rank, processes, port, saves if rank == 0 else 0)
        children.append(child)
    return children


def wait(children: list[int], seconds: float) -> dict[int, int]:
    """Exit codes, by process, of those that ended in time; negative for a signal."""
    codes, end = {}, time.monotonic() + seconds
    while len(codes) < len(children) and time.monotonic() < end:
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return codes


def kill(children: list[int], codes: dict[int, int]) -> None:
    for child in children:
        if child not in codes:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it was killed and waited for before
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def newest_step(output: Path) -> int:
    return next((step for step, folder in checkpoints.steps(output).items() if complete(folder)), 0)


def torment(inputs: Path, output: Path, processes: int, kills: int, seed: int) -> dict:
    """What it went through: how it was killed, checkpoints that were cut off, and the newest step after each kill."""
    rng, story = random.Random(seed), {"kills": [], "cut_off_checkpoints": 0, "newest": []}
    longest, before = 1.0, 0
    while True:
        how = rng.choice(HOWS if processes > 1 else HOWS[:-1]) if len(story["kills"]) < kills else None
        children = start(inputs, output, processes, rng.randint(1, 9) if how == "while saving" else 0)

        if how == "while saving":
            codes = wait(children[:1], 120)
            wanted = {children[0]: -signal.SIGKILL}
        elif how == "sigterm":
            end = time.monotonic() + 120
            while newest_step(output) <= before and time.monotonic() < end:
                time.sleep(0.01)
            codes = wait(children, rng.uniform(0, 0.3))
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGTERM)
            codes |= wait([child for child in children if child not in codes], 120)
            wanted = dict.fromkeys(children, 128 + signal.SIGTERM)
        else:
            codes = wait(children, rng.uniform(0, longest) if how else 600)
            wanted = {} if how else dict.fromkeys(children, 0)
            if how == "one":
                os.kill(children[-1], signal.SIGKILL)
                wait(children[:-1], rng.uniform(0, 0.3))

        kill(children, codes)
        if codes != wanted:
            raise RuntimeError(f"It ended with {codes}, not {wanted}, after {story}; see {output}-0.log.")
        if how is None:
            return story

        story["kills"].append(how)
        folders = checkpoints.steps(output).values()
        story["cut_off_checkpoints"] += sum(not complete(folder) for folder in folders)
        # A run gets longer until it gets anywhere.
        longest = longest + 0.5 if newest_step(output) == before else longest
        before = newest_step(output)
        story["newest"].append(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    inputs = args.folder / "inputs"
    shutil.rmtree(args.folder, ignore_errors=True)
    inputs.mkdir(parents=True)
    make = os.fork()  # so that this process never computes, which forks do not bear well
    if make == 0:
        make_inputs(inputs)
        os._exit(0)
    os.waitpid(make, 0)
    whole = start(inputs, args.folder / "whole", args.processes)
    codes = wait(whole, 600)
    if sorted(codes.values()) != [0] * args.processes:
        raise SystemExit(f"The undisturbed run ended with {codes}, see {args.folder}/whole-0.log")
    story = torment(inputs, args.folder / "killed", args.processes, args.kills, args.seed)
    names = ("adapter_model.safetensors", "merged/model.safetensors", "robustness.json", "robustness_before.json")
    same = {name: len({(args.folder / run / name).read_bytes() for run in ("whole", "killed")}) == 1 for name in names}
    # Each of several processes keeps random numbers of its own.
    newest = next(iter(checkpoints.steps(args.folder / "whole").values()))
    print(json.dumps({**story, "same": same, "processes": len([*newest.glob("rng_state*.pth")])}))


if __name__ == "__main__":
    main()
