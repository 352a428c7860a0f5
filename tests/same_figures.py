"""Shows that the working tree computes what an earlier commit did: the same losses, weights, reports and texts.

    python tests/same_figures.py
    python tests/same_figures.py --parts steps attacks
    python tests/same_figures.py --before COMMIT --folder outputs/same --full

It is no test of pytest. It checks the commit out into a folder of its own and runs one worker on each of the two
trees, this very file, in a process with one thread. A worker writes what each part finds as names and values; a
tensor stands there as a digest of its bytes. The two lists must be equal to the bit, and what the commit's worker
wrote to disk (checkpoints, reports, verdict files) must open in the working tree. It exits with 1 if they are not.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import inspect
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import typing
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import yaml
from peft import LoraConfig
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, CLIPConfig, CLIPModel, LlavaForConditionalGeneration

HERE = Path(__file__).resolve().parents[1]
# The tree under test, in place of the folder of this file on the path; its names are read when they are used.
ROOT = Path(os.environ.get("SAME_FIGURES_ROOT", HERE))
sys.path[0] = str(ROOT)
import hf_pmgaft as package  # noqa: E402

# The last commit before the code moved into folders by subject.
BEFORE = "fb212fc9b1d736407409fb39b687a7ceaf21bf80"
SIDES = ("before", "now")
FAILED = "failed with"

# What cannot be equal and is left out: durations and what follows from them. Paths of the two trees and of the
# worker's folder are replaced by a word. Versions of libraries are those of one environment and stay; that of
# hf_pmgaft, on which protocol hashes depend, is the same word on both sides.
TIMES = ("runtime", "samples_per_second", "steps_per_second")
# Texts that were changed on purpose: from, to.
INTENDED = {
    "from hf_pmgaft.backbones import get_encoder": "from hf_pmgaft import get_encoder",
    # Recipes have moved, and name the embedded files by a placeholder.
    "examples/configs/../emoji": "examples/emoji",
    "{emoji}/": "",
}

CLASS_NAMES = ["red disc", "green disc", "blue square", "yellow square"]
COLOURS = [(210, 40, 40), (40, 180, 60), (50, 70, 210), (220, 200, 40)]
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj", "fc1"]}
# Few steps for every attack.
SHORT: dict[str, dict[str, Any]] = {
    **{"apgd": {"num_steps": 5}, "apgd_t": {"num_steps": 5, "num_targets": 2}, "square": {"num_queries": 30}},
    **{"fab": {"num_steps": 5}, "fab_t": {"num_steps": 5, "num_targets": 2}},
    **{"cw": {"num_steps": 5, "search_steps": 2}, "pgd": {"num_steps": 3, "loss": "margin", "restarts": 2}},
    **{"patch": {"size": 6, "num_steps": 3, "places": 2}, "corruption": {"kind": "jpeg", "severity": 3}},
}


# ---- The two sides ----


def main() -> None:
    args = parse()
    if args.worker:
        work(args)
        return

    folder = Path(args.folder or tempfile.mkdtemp(prefix="same_figures_")).resolve()
    for side in SIDES:
        shutil.rmtree(folder / side, ignore_errors=True)
    checkout = folder / "checkout"
    try:
        check_out(args.before, checkout)
        run_workers(args, folder, {"before": checkout, "now": HERE})
        equal = compare(args.parts, folder)
    finally:
        shutil.rmtree(checkout, ignore_errors=True)
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if equal else 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT", help="What to compare with; %(default)s.")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="All if absent.")
    parser.add_argument("--folder", help="Where both sides write, kept; a temporary folder, removed, if absent.")
    parser.add_argument("--full", action="store_true", help="The whole demo instead of its first steps (10 minutes).")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def check_out(commit: str, folder: Path) -> None:
    """Writes the files of a commit into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(HERE), "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)


def run_workers(args: argparse.Namespace, folder: Path, roots: dict[str, Path]) -> None:
    """Runs both workers at once, each on one thread, and ends both if one fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    environment |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    workers = {}
    for side, root in roots.items():
        (folder / side).mkdir(parents=True)
        own = {"SAME_FIGURES_ROOT": str(root), "HF_DATASETS_CACHE": str(folder / side / "cache")}
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--worker",
            side,
            "--folder",
            str(folder),
            "--parts",
            *args.parts,
        ]
        command += ["--full"] if args.full else []
        with (folder / side / "log.txt").open("w") as log:
            workers[side] = subprocess.Popen(command, env={**environment, **own}, stderr=log)

    try:
        while any(worker.poll() is None for worker in workers.values()):
            if any(worker.poll() for worker in workers.values()):
                break
            time.sleep(0.2)
    finally:
        for worker in workers.values():
            worker.terminate()
    for side, worker in workers.items():
        if worker.wait() > 0:
            log = (folder / side / "log.txt").read_text()
            sys.exit(f"{log[-3000:]}\nThe worker {side!r} failed, see above.")


def compare(parts: list[str], folder: Path) -> bool:
    """Prints a line per part, and says whether all are equal."""
    rows, equal = [("part", "values", "seconds", "result")], True
    for part in parts:
        before, now = (json.loads((folder / side / f"{part}.json").read_text()) for side in SIDES)
        note = may_be_refused(before["values"], now["values"])
        keys = list(dict.fromkeys([*before["values"], *now["values"]]))
        lacks = "(not there)"
        pairs = {key: [json.dumps(side["values"].get(key, lacks)) for side in (before, now)] for key in keys}
        differing = [key for key, (first, second) in pairs.items() if first != second or key == FAILED]

        result = "equal" + note
        if differing:
            first, second = (text if len(text) < 800 else f"... {text[-800:]}" for text in pairs[differing[0]])
            result = f"{len(differing)} differ, the first is {differing[0]}:\n  before {first}\n  now    {second}"
            equal = False
            (folder / f"{part}_differing.txt").write_text("\n".join(differing) + "\n")
        rows.append((part, str(len(keys)), f"{before['seconds']:.0f} / {now['seconds']:.0f}", result))
    for name, values, seconds, result in rows:
        print(f"{name:<10}{values:>8}{seconds:>14}  {result}")
    print("all equal" if equal else "NOT EQUAL")
    return equal


def may_be_refused(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Takes out what follows from an earlier checkpoint if it is refused with a word on the changelog."""
    answers = [value for key, value in now.items() if key.endswith("earlier checkpoint")]
    refused = [answer for answer in answers if answer.startswith("refused") and "changelog" in answer.lower()]
    if not refused:
        return ", earlier checkpoints go on" * bool(answers)
    for side in (before, now):
        for key in [key for key in side if "earlier checkpoint" in key]:
            del side[key]
    return f", {len(refused)} earlier checkpoints refused with a word on the changelog"


# ---- A worker ----


@dataclasses.dataclass
class Part:
    """Where a part works: in a folder of its own, beside that of the earlier side."""

    folder: Path
    earlier: Path
    full: bool = False

    def settled(self, value: Any) -> Any:
        """A text without the paths and durations of this run, and with the intended changes; others as they are."""
        if not isinstance(value, str):
            return value
        value = re.sub(rf"'\w+_({'|'.join(TIMES)})': '[^']*'", "", value)
        value = re.sub(r"(\.\./)+[^ ]*(?=/examples/)", "ROOT", value)  # the way from the folder to the tree
        words = {str(self.folder): "OUT", str(self.earlier): "OUT", str(ROOT): "ROOT"}
        for old, new in {**words, **INTENDED}.items():
            value = value.replace(old, new)
        return value

    def wait_for_earlier(self) -> None:
        """Waits until the earlier side has written all of this part."""
        while self.folder != self.earlier and not self.earlier.with_suffix(".json").exists():
            time.sleep(0.2)


def work(args: argparse.Namespace) -> None:
    """Writes what each part finds into a file of its own."""
    assert Path(package.__file__).parents[1] == ROOT, package.__file__
    package.__version__ = "any"
    torch.set_num_threads(1)
    folder = Path(args.folder)
    for name in args.parts:
        start, part = time.monotonic(), Part(folder / args.worker / name, folder / "before" / name, args.full)
        say(f"{args.worker:<7} {name} ...")
        part.folder.mkdir()
        os.chdir(part.folder)
        torch.manual_seed(0)
        try:
            with redirect_stdout(sys.stderr):  # which is the log
                found = dict(flat(PARTS[name](part)))
        except Exception:  # so that the other parts are still compared
            found = {FAILED: traceback.format_exc()}
        values = {key: part.settled(value) for key, value in found.items() if not key.endswith(TIMES)}

        seconds = time.monotonic() - start
        partial = part.folder.with_suffix(".partial")
        partial.write_text(json.dumps({"seconds": seconds, "values": values}))
        partial.rename(part.folder.with_suffix(".json"))
        say(f"{args.worker:<7} {name}: {len(values)} values in {seconds:.0f} s")


def say(text: str) -> None:
    """A line at once, which the other worker's cannot break."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts and lists with their path; tensors and other objects as text."""
    if isinstance(value, (dict, list, tuple)) and not value:
        yield name, "nothing"
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from flat(entry, f"{name}/{key}".strip("/"))
    elif isinstance(value, (list, tuple)) and len(value) < 1000:
        for number, entry in enumerate(value):
            yield from flat(entry, f"{name}/{number}")
    elif isinstance(value, torch.Tensor):
        yield name, tensor_text(value)
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield name, value
    else:
        yield name, str(value)


def tensor_text(tensor: Any) -> str:
    """Type, shape, digest of all bytes, and the sum for a human eye."""
    whole = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(whole.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    return f"{whole.dtype} {list(whole.shape)} {digest} sum {whole.double().sum().item():.9g}"


def contents(folder: Path, pattern: str = "*") -> dict[str, Any]:
    """All files below a folder by name: tensors, parsed JSON, lines of text, pixels of pictures."""
    return {
        file.relative_to(folder).as_posix(): content(file) for file in sorted(folder.rglob(pattern)) if file.is_file()
    }


def content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as weights:
            return {**(weights.metadata() or {}), **{name: weights.get_tensor(name) for name in weights.keys()}}
    if file.suffix == ".json" and file.name != "tokenizer.json":
        return json.loads(file.read_text(encoding="utf-8"))
    if file.suffix == ".png":
        return torch.from_numpy(np.array(Image.open(file).convert("RGB")))
    if file.suffix in (".md", ".txt", ".yaml", ".jsonl", ".jinja"):
        return file.read_text(encoding="utf-8").splitlines()
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def script(part: Part, name: str, *flags: Any) -> list[str]:
    """What a script of examples/ prints, run as from the command line."""
    path, arguments, paths = ROOT / "examples" / name, sys.argv, list(sys.path)
    sys.argv, printed = [str(path), *map(str, flags)], io.StringIO()
    sys.path.insert(0, str(path.parent))
    try:
        with redirect_stdout(printed):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise RuntimeError(f"{sys.argv} ended with {error.code}") from error
    finally:
        sys.argv, sys.path[:] = arguments, paths
    # DeepSpeed, where it is installed, prints the time at its first import.
    return [line for line in printed.getvalue().splitlines() if "[WARNING] [real_accelerator" not in line]


# ---- The tiny CLIP, its data and its trainer ----


def make_model(seed: int = 0) -> Any:
    """A random CLIP for images of 16 pixels, whose hidden and projection widths differ."""
    torch.manual_seed(seed)
    text = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2, vocab_size=2000)
    text |= dict(max_position_embeddings=24, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=24)
    vision = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2)
    vision |= dict(image_size=16, patch_size=4, projection_dim=24)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():  # the default initialisation is so small that no gradient would be seen
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


def make_processor() -> Any:
    """That of the emoji, for images of 16 pixels."""
    processor = AutoProcessor.from_pretrained(ROOT / "examples/emoji/model")
    processor.image_processor.size = {"shortest_edge": 16}
    processor.image_processor.crop_size = {"height": 16, "width": 16}
    return processor


def make_images(size: int = 32, captions: bool = False) -> Any:
    """Noisy discs and squares in four colours on white, with two captions each on demand."""
    rng, rows = np.random.default_rng(0), {"image": [], "label": []}
    for number in range(size):
        label = number % 4
        pixels = np.full((20, 20, 3), 230.0)
        y, x = np.mgrid[:20, :20] - rng.integers(8, 12, size=2)[:, None, None]
        pixels[x**2 + y**2 < 36 if label < 2 else (abs(x) < 6) & (abs(y) < 6)] = COLOURS[label]
        pixels += rng.normal(0, 12, pixels.shape)
        rows["image"].append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
        rows["label"].append(label)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASS_NAMES)})
    images = datasets.Dataset.from_dict(rows, features=features)
    texts = [[f"a photo of the {CLASS_NAMES[k]}", f"an image of {CLASS_NAMES[k]}"] for k in rows["label"]]
    return images.add_column("captions", texts) if captions else images


def make_trainer(folder: Path, **options: Any) -> Any:
    own = ("eval_dataset", "teacher", "guidance_names", "peft_config", "prompt_templates", "train_dataset")
    passed = {key: options.pop(key) for key in own if key in options}
    defaults = dict(output_dir=str(folder), eps="8/255", learning_rate=5e-3, max_steps=3, logging_steps=1)
    defaults |= dict(per_device_train_batch_size=8, per_device_eval_batch_size=8, eval_num_steps=3)
    defaults |= dict(save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, seed=0)
    args = package.PMGAFTConfig(**{**defaults, **options})
    captions = package.OBJECTIVES[args.objective].uses_captions
    data = {"train_dataset": make_images(captions=captions), "prompt_templates": "a photo of the {}"}
    return package.PMGAFTTrainer(make_model(), args, processing_class=make_processor(), **{**data, **passed})


def trained(folder: Path, resume: Path | None = None, **options: Any) -> dict[str, Any]:
    """Trains, and gives the logs, the weights of the last step and all that is saved; or what was refused."""
    try:
        trainer = make_trainer(folder, **options)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except ValueError as error:
        return {"refused": str(error)}
    trainer.save_model(str(folder / "saved"))
    weights = dict(trainer.model.state_dict())
    return {"log": trainer.state.log_history, "weights": weights, "saved": contents(folder / "saved")}


def other_options(objective: type) -> dict[str, Any]:
    """Other values than the defaults for all options of an objective at once."""
    hints, options = typing.get_type_hints(objective), {}
    for field in dataclasses.fields(objective):
        if typing.get_origin(hints[field.name]) is typing.Literal:
            options[field.name] = typing.get_args(hints[field.name])[-1]
        elif isinstance(field.default, bool):
            options[field.name] = not field.default
        elif isinstance(field.default, float):
            options[field.name] = 1.5 * field.default
        elif field.default is None:
            options[field.name] = 0.4
    return options


# ---- The parts ----


def steps(part: Part) -> dict[str, Any]:
    """Three steps of every objective, every tuning and every kind of step: logs, weights, what is saved."""
    runs: dict[str, dict[str, Any]] = {name: {"objective": name} for name in package.OBJECTIVES}
    for name, objective in package.OBJECTIVES.items():
        runs[f"{name} with other options"] = {"objective": name, "objective_kwargs": other_options(objective)}

    small = {"deep_prompts": {"num_tokens": 2, "depth": 1}, "text_context": {"num_tokens": 3}, "peft": LORA}
    for name in package.TUNINGS:
        runs[f"tuning {name}"] = {"tuning": name, "tuning_kwargs": small.get(name)}
    for name, other in {
        "deep_prompts": {"num_tokens": 1, "depth": 2, "coupling": "text_to_vision"},
        "last_blocks": {"blocks": 2},
        "peft": {**LORA, "towers": "both"},
        "r_adapter": {"drop": 0.0, "rescale": 1.0},
        "text_context": {"num_tokens": 2, "class_specific": True},
    }.items():
        runs[f"tuning {name} with other options"] = {"tuning": name, "tuning_kwargs": other}
    runs["LoRA"] = {"peft_config": LoraConfig(**LORA)}

    runs |= {
        "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        "moving average": {"ema_decay": 0.5},
        "wise_ft": {"wise_ft": 0.3},
        "moving average, wise_ft": {"ema_decay": 0.5, "wise_ft": 0.3},
        "augmentation": {"augmentation": 0.7},
        "tau": {"objective": "tecoa", "attack_kwargs": {"tau": 1}, "num_steps": 4},
        "shared": {"attack": "shared", "max_steps": 6},
        "fgsm": {"attack": "fgsm"},
        "l2": {"norm": "l2", "eps": 0.5, "num_steps": 3},
        "margin": {"attack_kwargs": {"loss": "margin", "momentum": 0.75, "restarts": 2}, "objective": "tecoa"},
        "no random start": {"random_start": False, "step_size": "2/255"},
        "bf16": {"bf16": True},
        "attack in bf16": {"attack_precision": "bf16"},
        "other seed": {"seed": 7},
        "teacher": {"teacher": make_model(seed=3)},
        "guidance": {
            "guidance_names": ["red", "green", "blue"],
            "prompt_templates": ["a photo of the {}", "an image of {}"],
        },
        "stream": {"train_dataset": make_images().to_iterable_dataset()},
        "evaluation": {"eval_dataset": {"set": make_images(12)}, "eval_strategy": "steps", "eval_steps": 2},
    }
    found: dict[str, Any] = {}
    for name, options in runs.items():
        found[name] = trained(part.folder / name, **options)
    defaults = package.PMGAFTConfig(output_dir=str(part.folder), use_cpu=True).to_dict()
    found["defaults"] = {key: value for key, value in defaults.items() if key not in ("logging_dir", "run_name")}
    return found


def resume(part: Part) -> dict[str, Any]:
    """Four steps at once, two and two, and two after the two of the earlier side: logs and weights."""
    runs = {
        "pmg_aft": {},
        "shared": {"attack": "shared", "ema_decay": 0.5},
        "learned terms": {"objective": "qt_aft", "wise_ft": 0.5},
        "captions": {"objective": "advflyp", "augmentation": 0.5},
        "peft": {"tuning": "peft", "tuning_kwargs": LORA, "ema_decay": 0.5},
        "r_adapter": {"tuning": "r_adapter"},
        "text_context": {"tuning": "text_context", "tuning_kwargs": {"num_tokens": 3}},
    }
    found: dict[str, Any] = {}
    for name, options in runs.items():
        options |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        folder, own = part.folder / name, Path(name, "checkpoint-2")
        found[name] = {"whole": trained(folder, **options), "checkpoint": contents(folder / own.name, "*.safetensors")}
        found[name]["resumed"] = trained(part.folder / f"{name} resumed", part.folder / own, **options)
        assert dict(flat(found[name]["resumed"]["weights"])) == dict(flat(found[name]["whole"]["weights"])), name

    part.wait_for_earlier()
    for name, options in runs.items():
        checkpoint = part.earlier / name / "checkpoint-2"
        earlier = trained(part.folder / f"{name} of earlier", checkpoint, **options)
        found[name]["earlier checkpoint"] = f"refused: {earlier['refused']}" if "refused" in earlier else "goes on"
        found[name]["from earlier checkpoint"] = earlier
    return found


def attacks(part: Part) -> dict[str, Any]:
    """Adversarial images of every attack in every norm, and the noise."""
    from hf_pmgaft.attacks import CORRUPTIONS, SEVERITIES, normal_noise, sample_seeds, uniform_noise

    model, processor = make_model(), make_processor()
    texts = package.encode_class_names(model, processor, CLASS_NAMES, "a photo of the {}")
    classifier = package.ZeroShotClassifier.from_model(model, processor, texts)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels, seeds = torch.arange(6) % 4, sample_seeds(0, 3, torch.arange(6))
    with torch.no_grad():
        found = {"texts": texts, "logits": classifier(images), "seeds": seeds}
    for kind, noise in {"uniform": uniform_noise, "normal": normal_noise}.items():
        found[f"{kind} noise"] = [noise(seeds, (3, 5), stream) for stream in range(3)]

    runs: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in sorted(set(package.ATTACKS) - {"corruption", "patch"}):
        for norm, eps in {"linf": "4/255", "l2": 0.5, "l1": 4.0}.items():
            if norm != "l1" or name in ("apgd", "apgd_t", "fab", "fab_t", "square"):
                runs[f"{name} {norm}"] = name, {"eps": eps, "norm": norm, **SHORT.get(name, {})}
    for norm, eps in {"linf": "8/255", "l2": 1.0}.items():
        for loss in ("ce", "margin", "dlr"):
            extra = {"loss": loss, "restarts": 2, "momentum": 0.75, "random_start": loss != "margin"}
            runs[f"pgd {norm} {loss}"] = "pgd", {"eps": eps, "norm": norm, "num_steps": 4, **extra}
        runs[f"pgd {norm} defaults"] = "pgd", {"eps": eps, "norm": norm}
    for loss in ("ce", "margin", "dlr"):
        runs[f"apgd {loss}"] = "apgd", {"eps": "4/255", "loss": loss, "num_steps": 5, "restarts": 2}
        runs[f"fgsm {loss}"] = "fgsm", {"eps": "4/255", "loss": loss}
    runs |= {f"patch {size}": ("patch", {**SHORT["patch"], "size": size}) for size in (3, 8)}
    for kind in CORRUPTIONS:
        for severity in SEVERITIES:
            runs[f"{kind} {severity}"] = "corruption", {"kind": kind, "severity": severity}
    for title, (name, options) in runs.items():
        attack = package.ATTACKS[name]
        if title == "cw linf" and "any_iterate" not in inspect.signature(attack).parameters:
            # It took the first misclassified point by default, which is put around it since.
            attack = functools.partial(package.attacks.first_fooled, attack)
        found[title] = attack(classifier, images, labels, seeds=seeds, **options)
    return found


def data(part: Part) -> dict[str, Any]:
    """Rows of evaluation sets, retrieval sets and training sets, few shots, and augmented images."""
    from hf_pmgaft.data import augment, few_shot, load_images, parse_set, training_examples

    _, processor = emoji()
    food = load_images(*parse_set(f"{ROOT}/examples/emoji/data:food@validation"))
    sets = {"plain": {}, "resize": {"resize": 48}, "native": {"native_size": True}, "border": {"border": 3}}
    found: dict[str, Any] = {"set": parse_set("NAME:config@split"), "size": len(food)}
    for name, options in sets.items():
        rows = package.ZeroShotDataset(food, processor, name=name, **options)
        found[name] = {"rows": [rows[i] for i in (0, 7, 50)], "class_names": rows.class_names}
    captions = package.RetrievalDataset(food, processor, "label,tags", name="captions")
    found["captions"] = [captions[i] for i in (0, 7, 50)]

    examples = training_examples(make_images(captions=True), make_processor(), caption_column="auto")
    found["examples"] = [examples[i] for i in (0, 5)]
    found["few shots"] = [few_shot(examples, 2, seed)[5] for seed in range(3)]
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found["augmented"] = [augment(images, torch.arange(4), strength) for strength in (0.0, 0.5, 1.0)]
    return found


def models(part: Part) -> dict[str, Any]:
    """Models at another resolution, for open_clip, in a LLaVA, and class embeddings on disk."""
    model, processor = emoji()
    larger, resized = package.at_resolution(model, processor, 64)
    package.save_open_clip(model, processor, part.folder / "open_clip")
    back = package.load_open_clip(part.folder / "open_clip", model)
    package.export_class_embeds(model, processor, ["dog", "red fish"], part.folder / "embeds.safetensors")
    llava = LlavaForConditionalGeneration.from_pretrained(ROOT / "examples/emoji/llava")
    package.swap_vision_tower(llava, model)
    return {
        "at resolution": {"weights": larger.state_dict(), "processor": resized.to_dict()},
        "to open_clip": package.to_open_clip(model),
        "from open_clip": back.state_dict(),
        "files": contents(part.folder),
        "vision tower": package.vision_tower(llava).state_dict(),
        "loaded": package.load_model(str(ROOT / "examples/emoji/model")).state_dict(),
        "folded": package.fold_into_clip(model).state_dict(),
    }


def reports(part: Part) -> dict[str, Any]:
    """Whole reports and verdict files of every attack; those of the earlier side are opened and gone on with."""
    found: dict[str, Any] = {}
    evaluations = evaluations_of(part)
    for name, (model, processor, sets, attack_list, options) in evaluations.items():
        file = part.folder / f"{name}.jsonl"
        report = package.evaluate_robustness(
            model, processor, sets, attack_list, verdict_file=file, progress=False, **options
        )
        report.save(part.folder / f"{name}.json")
        seen = {"metrics": report.metrics(), "html": report._repr_html_().splitlines()}
        found[name] = {**report.to_dict(), **seen, "verdict file": [json.loads(x) for x in file.open()]}

    part.wait_for_earlier()
    for name, (model, processor, sets, attack_list, options) in evaluations.items():
        own, saved = (package.RobustnessReport.load(folder / f"{name}.json") for folder in (part.folder, part.earlier))
        found[name]["saved earlier"] = saved.to_dict()
        found[name]["compared with earlier"] = tried(lambda a, b: package.compare_reports(a, b).to_dict(), saved, own)

        file = Path(shutil.copy(part.earlier / f"{name}.jsonl", part.folder / f"{name} of earlier.jsonl"))
        lines, options = file.read_text(), {**options, "verdict_file": file, "progress": False}
        again = tried(package.evaluate_robustness, model, processor, sets, attack_list, **options)
        found[name]["from earlier verdicts"] = again if isinstance(again, str) else again.to_dict()
        found[name]["nothing computed anew"] = file.read_text() == lines
    return found


def tried(ask: Callable, *args: Any, **options: Any) -> Any:
    """What a call gives, or why it was refused."""
    try:
        return ask(*args, **options)
    except ValueError as error:
        return f"refused: {error}"


def evaluations_of(part: Part) -> dict[str, tuple]:
    """By name: model, processor, sets, attacks and options of an evaluation."""
    from hf_pmgaft.data import load_images

    # Every attack with few steps, in two radii of L-inf and in other norms
    every = [{"attack": "pgd", "eps": "2/255", "num_steps": 5, "loss": "margin"}]
    for name in sorted(package.ATTACKS):
        ball = {} if name in ("patch", "corruption") else {"eps": 0.5 if name == "cw" else "4/255"}
        every.append({"attack": name, **ball, **SHORT.get(name, {})})
    every += [{"attack": name, "eps": 0.5, "norm": "l2", **SHORT[name]} for name in ("pgd", "apgd", "square")]
    every += [{"attack": "apgd", "eps": 6.0, "norm": "l1", "num_steps": 5}, {"attack": "pgd", "eps": "1/255"}]
    last = {"verdict": "last_iterate", "max_samples": 6, "batch_size": 4}

    clip, processor = emoji()
    folder, template = str(ROOT / "examples/emoji/data"), "an emoji of {}"
    load = {name: load_images(folder, name, "test") for name in ("animals", "smileys", "food")}
    named = [package.ZeroShotDataset(load[name], processor, None, template, name) for name in ("animals", "smileys")]
    captions = [package.RetrievalDataset(load["food"], processor, "label,tags", name="food captions")]
    pulled = [package.RetrievalDataset(load["food"], processor, "label", name="food", target="drawn")]
    ranked = [{"attack": "pgd", "eps": eps, "num_steps": 3, "loss": "margin"} for eps in ("2/255", "4/255")]
    ranked += [{"attack": "fgsm", "eps": "4/255"}]
    noisy = [*ranked, {"attack": "corruption", "kind": "jpeg", "severity": 3}]

    # AutoAttack has its own numbers of steps, so the model and its set are tiny.
    tiny, tiny_processor = make_model(), make_processor()
    few, support = (
        package.ZeroShotDataset(make_images(size), tiny_processor, name=name)
        for size, name in ((6, "few"), (32, "support"))
    )
    auto = [{"attack": "autoattack", "eps": "4/255", "version": version} for version in ("fast", "standard")]
    default = {"attack": "pgd", "eps": "1/255"}
    return {
        "any iterate": (clip, processor, named, every, {"eight_bit": True, "max_samples": 10}),
        "last iterate": (clip, processor, named, every, last),
        "retrieval": (clip, processor, captions, noisy, {"max_samples": 16, "eight_bit": True}),
        "retrieval last iterate": (clip, processor, captions, noisy, {**last, "max_samples": 16}),
        "target": (clip, processor, pulled, ranked, {"max_samples": 16}),
        "autoattack": (tiny, tiny_processor, [few], auto, {"eight_bit": True}),
        "nearest class mean": (tiny, tiny_processor, [few], [default], {"head": package.NearestClassMean(support)}),
        "linear probe": (tiny, tiny_processor, [few], [default], {"head": package.LinearProbe(support), "seed": 3}),
    }


def emoji() -> tuple:
    """The CLIP of the emoji and its processor."""
    folder = ROOT / "examples/emoji/model"
    return CLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def demo(part: Part) -> dict[str, Any]:
    """The embedded default and an adapter by the script: all files of its output, and what it prints."""
    few = ["--max_steps", 6, "--eval_max_samples", 8, "--eval_num_steps", 3, "--logging_steps", 2]
    adapter = ["--objective", "tecoa", "--lora_r", 4, "--ema_decay", 0.5, "--seed", 1, "--shots", 1]
    runs = {"default": [] if part.full else few, "adapter": [*few, *adapter]}
    return {name: run_pmgaft(part, name, *flags) for name, flags in runs.items()}


def recipes(part: Part) -> dict[str, Any]:
    """All recipes as they are written, and two steps of each on the emoji."""
    folders = [ROOT / "examples/configs", ROOT / "hf_pmgaft/recipes"]
    model, images = ROOT / "examples/emoji/model", f"{ROOT}/examples/emoji/data:finetune"
    small = ["--model_name_or_path", model, "--dataset_name", images, "--image_column", "image", "--do_eval", "no"]
    small += ["--shots", 1, "--max_steps", 2, "--per_device_train_batch_size", 16, "--logging_steps", 1]
    small += ["--dataloader_num_workers", 0, "--save_strategy", "no"]
    found: dict[str, Any] = {}
    for file in sorted({file.stem: file for folder in folders for file in folder.glob("*.yaml")}.values()):
        # Paths from the recipe's folder are another way where it has moved.
        written = re.sub(r"\{config_dir\}[^\s\"]*/", "", file.read_text(encoding="utf-8"))
        recipe = yaml.safe_load(written)
        flags = ["--caption_column", "tags"] if "caption_column" in recipe else []
        fitting = {"deep_prompts": {"depth": 2}, "text_context": {"num_tokens": 4}}.get(recipe.get("tuning"))
        if fitting:
            flags += ["--tuning_kwargs", json.dumps({**recipe.get("tuning_kwargs", {}), **fitting})]
        found[file.stem] = {"written": recipe, **run_pmgaft(part, file.stem, "--config", file, *small, *flags)}
    return found


def run_pmgaft(part: Part, name: str, *flags: Any) -> dict[str, Any]:
    """What the training script prints and writes."""
    folder = part.folder / name
    printed = script(part, "run_pmgaft.py", *flags, "--output_dir", folder, "--report_to", "none", "--use_cpu", "true")
    return {"printed": printed, "files": contents(folder)}


def outputs(part: Part) -> dict[str, Any]:
    """Tables in all formats, pictures, the comparison of two reports, model cards, and the results that are stored."""
    first, second, found = "first.json", "second.json", {}  # in the part's folder, where the script runs
    flags = ["--max_samples", 6, "--num_steps", 3, "--eight_bit", "--eps", "2/255", "4/255"]
    verdicts = ["--verdict_file", "verdicts.jsonl", "--output_file", first]
    for style in ("text", "markdown", "latex", "html"):
        found[style] = script(part, "evaluate_robustness.py", *flags, *verdicts, "--format", style)

    model, processor = emoji()
    for parameter in model.vision_model.parameters():
        parameter.data.mul_(1.1)
    for half in (model, processor):
        half.save_pretrained(part.folder / "other")
    other = ["--model", part.folder / "other", "--output_file", second]
    found["other model"] = script(part, "evaluate_robustness.py", *flags, *other)
    compared = ["--plots", "plots", "--output_file", "comparison.json"]
    found["comparison"] = script(part, "evaluate_robustness.py", "--compare", first, second, *compared)

    groups = [f"{ROOT}/examples/emoji/data:{name}@validation" for name in ("animals", "flags")]
    unseen = ["--unseen", "--max_samples", 3, "--num_steps", 2, "--plots", "unseen"]
    found["unseen"] = script(part, "evaluate_robustness.py", *unseen, "--eval_sets", *groups)
    retrieval = ["--caption_column", "label,tags", "--max_samples", 12, "--num_steps", 2]
    found["retrieval"] = script(part, "evaluate_robustness.py", *retrieval, "--plots", "retrieval")
    picture = ["--output_file", "gallery.png", "--num_steps", 3]
    found["gallery"] = script(part, "gallery.py", *picture)

    found["files"] = contents(part.folder)
    for pattern in ("autoattack*.json", "comparison.json", "costs*.json", "leaderboard*.json"):
        for file in sorted((ROOT / "examples").rglob(pattern)):
            found[f"stored {file.name}"] = content(file)
    return found


def vlm(part: Part) -> dict[str, Any]:
    """The attacked LLaVA on two images, with its own tower and that of the emoji: figures, texts, picture."""
    flags = ["--towers", ROOT / "examples/emoji/model", *"--num_images 2 --num_steps 3 --max_new_tokens 8".split()]
    files = {"output_file": "report.json", "verdict_file": "texts.jsonl", "gallery": "gallery.png"}
    for flag, file in files.items():
        flags += [f"--{flag}", part.folder / file]
    return {"printed": script(part, "attack_llava.py", *flags), "files": contents(part.folder)}


PARTS = {part.__name__: part for part in (demo, steps, resume, attacks, data, models, reports, recipes, outputs, vlm)}


if __name__ == "__main__":
    main()
