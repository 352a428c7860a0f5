"""Measures what the package's speed is worth, against the same thing as commonly written, in one interleaved run.

    python examples/benchmark.py evaluate
    python examples/benchmark.py scale --engines ddp zero1 zero2 zero3

evaluate: the any-iterate verdict under PGD by (a) the plain loop, as commonly written: every image, every step,
prompts encoded in each query, `loss.backward()`; (b) the same loop with the text cached; (c) `evaluate_robustness`,
from the files on. Then APGD-CE and APGD-T by (d) pyautoattack's own `run_standard_evaluation` and (e)
`evaluate_robustness`. The radius is the one at which a quarter of the images withstands PGD.

scale: a training step of the embedded default and of a ViT-B/32 of random weights by one process and by two, with one
thread each and the same global batch. Where two take more than half the time of one: by one process on half the batch
(what does not shrink with it), by two that exchange nothing (cores that get in each other's way), the rest being the
exchange. And what each process holds in memory between steps, by engine.

Times are medians of the repeats; ratios are taken within the run, since times of two runs do not compare.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import DistributedType, PartialState
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from transformers import AutoModel, AutoProcessor, CLIPConfig, CLIPModel, TrainerCallback

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.attacks import correct, sample_seeds, uniform_noise
from hf_pmgaft.data import ZeroShotDataset, load_images
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.prompts import prompt_name
from hf_pmgaft.tables import render
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

EMOJI = Path(__file__).parent / "emoji"
# Models of the part scale, with their global batch.
SCALED = {"embedded default": 64, "ViT-B/32": 8}
ENGINES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("part", choices=["evaluate", "scale"], help="What to measure.")
    parser.add_argument("--model", default=str(EMOJI / "model"), help="Hub id or folder of a CLIPModel.")
    parser.add_argument("--group", default="food", help="Emoji group whose images and classes are used.")
    parser.add_argument("--images", type=int, default=64, help="How many images.")
    parser.add_argument("--batch_size", type=int, default=32, help="Images at once.")
    parser.add_argument("--num_steps", type=int, default=50, help="Steps of PGD.")
    parser.add_argument("--apgd_steps", type=int, default=100, help="Steps of APGD.")
    parser.add_argument("--robust", type=float, default=0.25, help="Robust accuracy at which to measure.")
    parser.add_argument("--repeats", type=int, default=3, help="Interleaved repeats.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of torch.")
    parser.add_argument("--output_file", help="JSON file for the figures.")
    parser.add_argument("--engines", nargs="+", default=["ddp"], choices=ENGINES, help="Engines whose memory to tell.")
    parser.add_argument("--models", nargs="+", default=list(SCALED), choices=SCALED, help="Models to scale.")
    parser.add_argument("--steps", type=int, default=12, help="Training steps to time, after two to warm up.")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


class EvaluateBenchmark:
    """The same verdicts in several ways."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.processor = AutoProcessor.from_pretrained(args.model, trust_remote_code=False)
        self.model = AutoModel.from_pretrained(args.model, dtype=torch.float32, trust_remote_code=False).eval()
        images = load_images(str(EMOJI / "data"), args.group, "test")
        rows = list(range(min(args.images, len(images))))
        self.data = ZeroShotDataset(images.select(rows), self.processor, None, "an emoji of {}", args.group)
        examples = [self.data[row] for row in rows]
        self.images = torch.stack([example["images"] for example in examples])
        self.labels = torch.tensor([example["labels"] for example in examples])
        self.seeds = sample_seeds(0, 0, torch.tensor(rows))
        embeds = encode_class_names(self.model, self.processor, self.data.class_names, self.data.prompt_templates)
        self.classifier = ZeroShotClassifier.from_model(self.model, self.processor, embeds)
        prompts = [self.data.prompt_templates[0].format(prompt_name(name)) for name in self.data.class_names]
        self.prompts = self.processor.tokenizer(prompts, padding=True, return_tensors="pt")
        self.eps = self.find_eps()

    def find_eps(self) -> float:
        """The radius at which the share `--robust` of the images withstands PGD, by bisection."""
        low, high = 0.0, 32 / 255
        for _ in range(9):
            self.eps = (low + high) / 2
            low, high = (self.eps, high) if sum(self.ours()) > self.args.robust * len(self.labels) else (low, self.eps)
        return self.eps

    def ours(self, *attacks: dict) -> list[int]:
        """`evaluate_robustness`, under PGD if nothing else is said."""
        pgd = {"attack": "pgd", "num_steps": self.args.num_steps, "loss": "ce"}
        report = evaluate_robustness(
            self.model,
            self.processor,
            [self.data],
            [{"eps": self.eps, **attack} for attack in attacks or (pgd,)],
            batch_size=self.args.batch_size,
            probes=False,
            progress=False,
        )
        return report.sets[0].verdicts["robust"]

    def encode_each_time(self, images: torch.Tensor) -> torch.Tensor:
        """Logits by the model's own forward, which encodes the prompts too."""
        pixels = (images - self.classifier.mean) / self.classifier.std
        return self.model(pixel_values=pixels, **self.prompts).logits_per_image

    def loop(self, classify: Callable[[torch.Tensor], torch.Tensor]) -> list[int]:
        """PGD on every image to its last step; fooled is who was misclassified at any of them."""
        verdicts: list[int] = []
        step = 2.5 * self.eps / self.args.num_steps
        for start in range(0, len(self.labels), self.args.batch_size):
            part = slice(start, start + self.args.batch_size)
            images, labels = self.images[part], self.labels[part]
            with torch.no_grad():
                robust = correct(classify(images), labels)
            noise = (2 * uniform_noise(self.seeds[part], images.shape[1:]) - 1) * self.eps
            points = (images + noise).clamp(0, 1)
            for _ in range(self.args.num_steps):
                points = points.detach().requires_grad_()
                logits = classify(points)
                robust &= correct(logits.detach(), labels)
                F.cross_entropy(logits, labels, reduction="sum").backward()
                delta = (points.detach() + step * points.grad.sign() - images).clamp(-self.eps, self.eps)
                points = (images + delta).clamp(0, 1)
            with torch.no_grad():
                robust &= correct(classify(points), labels)
            self.model.zero_grad(set_to_none=True)
            verdicts += robust.int().tolist()
        return verdicts

    def apgd(self) -> list[int]:
        """APGD-CE and APGD-T by `evaluate_robustness`."""
        steps = {"num_steps": self.args.apgd_steps}
        return self.ours({"attack": "apgd", **steps}, {"attack": "apgd_t", **steps})

    def pyautoattack(self) -> list[int]:
        """The same by the library's own runner."""
        from pyautoattack import AutoAttack
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

        attacks = ["apgd-ce", "apgd-t"]
        runner = AutoAttack(self.classifier, eps=self.eps, attacks=attacks, version="custom", seed=0)
        options = {"n_iter": self.args.apgd_steps, "norm": "Linf", "eps": self.eps, "n_restarts": 1, "seed": 0}
        runner.apgd = APGDAttack(self.classifier, logger=runner.logger, **options)
        runner.apgd_targeted = APGDAttack_targeted(self.classifier, logger=runner.logger, **options)
        adversarial, _ = runner.run_standard_evaluation(self.images, self.labels, batch_size=self.args.batch_size)
        with torch.no_grad():
            return correct(self.classifier(adversarial), self.labels).int().tolist()


def evaluate(args: argparse.Namespace) -> None:
    """Prints times, ratios and verdicts of the ways to evaluate."""
    bench = EvaluateBenchmark(args)
    ways = {
        "plain loop": lambda: bench.loop(bench.encode_each_time),
        "loop, text cached": lambda: bench.loop(bench.classifier),
        "evaluate_robustness": bench.ours,
        "pyautoattack's runner": bench.pyautoattack,
        "evaluate_robustness, APGD": bench.apgd,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    verdicts = {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            verdicts[name] = way()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    baselines = {name: "evaluate_robustness" for name in list(ways)[:3]} | {
        name: "evaluate_robustness, APGD" for name in list(ways)[3:]
    }
    rows = [["way", "median s", "times ours", "robust", "verdicts that differ"]]
    for name, median in medians.items():
        own = baselines[name]
        differ = sum(a != b for a, b in zip(verdicts[name], verdicts[own], strict=True))
        share = sum(verdicts[name]) / len(verdicts[name])
        rows.append([name, f"{median:.2f}", f"{median / medians[own]:.1f}", f"{share:.1%}", str(differ)])
    print(render(rows))
    print(f"{len(bench.labels)} images, {len(bench.data.class_names)} classes, radius {255 * bench.eps:.2f}/255.")
    if args.output_file:
        content = {
            "part": "evaluate",
            "arguments": vars(args),
            "eps": bench.eps,
            "seconds": times,
            "medians": medians,
            "robust": {name: sum(values) / len(values) for name, values in verdicts.items()},
            "machine": {"processor": platform.processor(), "torch": torch.__version__, "threads": args.threads},
        }
        Path(args.output_file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


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


def scale_worker(args: argparse.Namespace) -> None:
    """One process of a run of the part scale; the first writes its step times and the bytes that it holds."""
    task = json.loads(args.worker)
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(str(EMOJI / "model"))
    if task["model"] == "ViT-B/32":
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig())
        edge = model.config.vision_config.image_size
        processor.image_processor.size = {"shortest_edge": edge}
        processor.image_processor.crop_size = {"height": edge, "width": edge}
    else:
        model = AutoModel.from_pretrained(str(EMOJI / "model"), dtype=torch.float32)
    engine = {"use_cpu": True}
    if task["engine"] == "fsdp2":
        # Accelerate lets it run on GPUs alone; what a process holds can be seen on the CPU too.
        PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
        config = {"transformer_layer_cls_to_wrap": ["CLIPEncoderLayer"], "state_dict_type": "FULL_STATE_DICT"}
        engine = {"use_cpu": False, "fsdp": True, "fsdp_config": config}
    if task["engine"].startswith("zero"):
        # DeepSpeed's own buckets take 2 GB, whatever the model.
        zero = {"zero_optimization": {"stage": int(task["engine"][-1]), "reduce_bucket_size": 5_000_000}}
        zero |= {"train_micro_batch_size_per_gpu": "auto", "zero_allow_untested_optimizer": True}
        zero |= {"gradient_accumulation_steps": "auto", "gradient_clipping": "auto"}
        engine["deepspeed"] = zero
    times, quiet = StepTimes(), NoExchange()
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
        callbacks=[times, quiet] if task["quiet"] else [times],
    )
    quiet.trainer = trainer
    if trainer.accelerator.num_processes != task["processes"]:
        raise RuntimeError(f"{trainer.accelerator.num_processes} processes run instead of {task['processes']}.")
    trainer.train()
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


def scale(args: argparse.Namespace) -> None:
    """Prints what a second process saves, where the rest goes, and what each process holds."""
    seconds: dict[str, dict[str, list[float]]] = {}
    held: dict[str, dict[str, int]] = {}

    def run(
        model: str, way: str, engine: str, processes: int, batch: int, quiet: bool = False, steps=args.steps
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            task = {"model": model, "engine": engine, "processes": processes, "batch": batch, "quiet": quiet}
            worker = [__file__, "scale", "--steps", str(steps)]
            worker += ["--worker", json.dumps({**task, "folder": folder})]
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            environment |= {"ACCELERATE_TORCH_DEVICE": "cpu"} if engine == "fsdp2" else {}
            command = [sys.executable, *(launch if processes > 1 else []), *worker]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
            result = json.loads((Path(folder) / "result.json").read_text())
        seconds.setdefault(model, {}).setdefault(way, []).append(statistics.median(result["seconds"]))
        held.setdefault(model, {})[way] = result["bytes"]

    for _ in range(args.repeats):
        for model in args.models:
            batch = SCALED[model]
            run(model, "one process", "none", 1, batch)
            run(model, "two processes", "ddp", 2, batch // 2)
            run(model, "one, half the batch", "none", 1, batch // 2)
            run(model, "two, no exchange", "ddp", 2, batch // 2, quiet=True)
    for model in args.models:
        for engine in args.engines:
            if engine != "ddp":
                run(model, engine, engine, 2, SCALED[model] // 2, steps=2)
    medians = {
        model: {way: statistics.median(times) for way, times in ways.items()} for model, ways in seconds.items()
    }
    rows = [["model", "way", "median s", "one process / this", "MiB held by a process"]]
    for model, ways in medians.items():
        for way, median in ways.items():
            times = f"{ways['one process'] / median:.2f}"
            rows.append([model, way, f"{median:.3f}", times, f"{held[model][way] / 2**20:.0f}"])
    print(render(rows))
    if args.output_file:
        machine = {"processor": platform.processor(), "torch": torch.__version__, "cores": os.cpu_count()}
        content = {"part": "scale", "seconds": seconds, "medians": medians, "bytes": held, "machine": machine}
        Path(args.output_file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.worker:
        scale_worker(args)
    {"evaluate": evaluate, "scale": scale}[args.part](args)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError, ImportError) as error:  # what was passed cannot work, and it says why
        sys.exit(f"error: {error}")
