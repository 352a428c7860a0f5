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
import hashlib
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
import typing
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml

# The last commit before the code moved into folders by subject.
BEFORE = "fb212fc9b1d736407409fb39b687a7ceaf21bf80"
HERE = Path(__file__).resolve().parents[1]
SIDES = ("before", "now")

# What cannot be equal and is left out: durations and what follows from them. Paths of the two trees and of the
# worker's folder are replaced by a word. Versions of libraries are those of one environment and stay; that of
# hf_pmgaft, on which protocol hashes depend, is the same word on both sides.
TIMES = ("runtime", "samples_per_second", "steps_per_second")
# Texts that were changed on purpose: from, to.
INTENDED = {"from hf_pmgaft.backbones import get_encoder": "from hf_pmgaft import get_encoder"}

CLASS_NAMES = ["red disc", "green disc", "blue square", "yellow square"]
WORDS = "a photo of this is an emoji the red green blue yellow disc square image".split()
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj", "fc1"]}
# Few steps for every attack.
SHORT: dict[str, dict[str, Any]] = {
    "apgd": {"num_steps": 5},
    "apgd_t": {"num_steps": 5, "num_targets": 2},
    "corruption": {"kind": "jpeg", "severity": 3},
    "cw": {"num_steps": 5, "search_steps": 2},
    "fab": {"num_steps": 5},
    "fab_t": {"num_steps": 5, "num_targets": 2},
    "patch": {"size": 6, "num_steps": 3, "places": 2},
    "pgd": {"num_steps": 3, "loss": "margin", "restarts": 2},
    "square": {"num_queries": 30},
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
    parser.add_argument("--root", help=argparse.SUPPRESS)
    return parser.parse_args()


def check_out(commit: str, folder: Path) -> None:
    """Writes the files of a commit into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(HERE), "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)


def run_workers(args: argparse.Namespace, folder: Path, roots: dict[str, Path]) -> None:
    """Runs both workers at once, each on one thread, and ends both if one fails."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    workers = {}
    for side, root in roots.items():
        (folder / side).mkdir(parents=True)
        offline = {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(folder / side / "cache"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
        environment = {**os.environ, **threads, **offline, **quiet, "PYTHONPATH": str(root), "MPLBACKEND": "agg"}
        command = [sys.executable, __file__, "--worker", side, "--root", str(root), "--folder", str(folder)]
        command += ["--parts", *args.parts] + ["--full"] * args.full
        with (folder / side / "log.txt").open("w") as log:
            workers[side] = subprocess.Popen(command, env=environment, cwd=root, stderr=log)

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
        differing = [key for key, (first, second) in pairs.items() if first != second]

        result = "equal" + note
        if differing:
            first, second = pairs[differing[0]]
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
    """Where a part works: the tree under test, a folder of its own, and that of the earlier side."""

    root: Path
    folder: Path
    earlier: Path
    full: bool = False

    def settled(self, text: str) -> str:
        """A text without the paths of this run, and with the intended changes."""
        words = {str(self.folder): "OUT", str(self.earlier): "OUT", str(self.root): "ROOT"}
        for old, new in {**words, **INTENDED}.items():
            text = text.replace(old, new)
        return text

    def wait_for_earlier(self) -> None:
        """Waits until the earlier side has written all of this part."""
        while self.folder != self.earlier and not self.earlier.with_suffix(".json").exists():
            time.sleep(0.2)


def work(args: argparse.Namespace) -> None:
    sys.path.remove(str(Path(__file__).parent))  # no test is to be imported by chance
    import torch

    import hf_pmgaft

    assert Path(hf_pmgaft.__file__).parents[1] == Path(args.root), hf_pmgaft.__file__
    hf_pmgaft.__version__ = "any"
    torch.set_num_threads(1)
    out = Path(args.folder)
    for name in args.parts:
        print(f"{args.worker:<7} {name} ...", flush=True)
        start = time.monotonic()
        part = Part(Path(args.root), out / args.worker / name, out / "before" / name, args.full)
        part.folder.mkdir()
        torch.manual_seed(0)
        with redirect_stdout(sys.stderr):  # which is the log
            values = {key: settle(part, value) for key, value in flat(PARTS[name](part))}
        values = {key: value for key, value in values.items() if not key.endswith(TIMES)}
        text = json.dumps({"seconds": time.monotonic() - start, "values": values})
        partial = part.folder.with_suffix(".partial")
        partial.write_text(text)
        partial.rename(part.folder.with_suffix(".json"))
        print(f"{args.worker:<7} {name}: {len(values)} values in {time.monotonic() - start:.0f} s", flush=True)


def settle(part: Part, value: Any) -> Any:
    return part.settled(value) if isinstance(value, str) else value


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dicts and lists with their path; tensors and other objects as text."""
    import torch

    if isinstance(value, dict):
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
    import torch

    whole = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(whole.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
    return f"{whole.dtype} {list(whole.shape)} {digest} sum {whole.double().sum().item():.9g}"


def contents(folder: Path, pattern: str = "*") -> dict[str, Any]:
    """All files below a folder by name: tensors, parsed JSON, lines of text, pixels of pictures."""
    return {
        file.relative_to(folder).as_posix(): content(file) for file in sorted(folder.rglob(pattern)) if file.is_file()
    }


def content(file: Path) -> Any:
    import numpy as np
    import torch
    from PIL import Image
    from safetensors import safe_open

    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as weights:
            return {**(weights.metadata() or {}), **{name: weights.get_tensor(name) for name in weights.keys()}}
    if file.suffix == ".json":
        return json.loads(file.read_text(encoding="utf-8"))
    if file.suffix == ".png":
        return torch.from_numpy(np.array(Image.open(file).convert("RGB")))
    if file.suffix in (".md", ".txt", ".yaml", ".jsonl", ".jinja"):
        return file.read_text(encoding="utf-8").splitlines()
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def script(part: Part, name: str, *flags: Any) -> list[str]:
    """What a script of examples/ prints, run as from the command line."""
    path, arguments, paths = part.root / "examples" / name, sys.argv, list(sys.path)
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
    return printed.getvalue().splitlines()


# ---- The tiny CLIP, its data and its trainer ----


def make_model(seed: int = 0) -> Any:
    """A random CLIP for images of 16 pixels, whose hidden and projection widths differ."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    text = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2, vocab_size=32)
    text |= dict(max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=24)
    vision = dict(hidden_size=32, intermediate_size=64, num_attention_heads=2, num_hidden_layers=2)
    vision |= dict(image_size=16, patch_size=4, projection_dim=24)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():  # the default initialisation is so small that no gradient would be seen
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


def make_processor() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    start, end, unknown = "<|startoftext|>", "<|endoftext|>", "<unk>"
    vocabulary = {word: number for number, word in enumerate([start, end, unknown, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 0), (end, 1)]
    )
    tokens = dict(bos_token=start, eos_token=end, pad_token=end, unk_token=unknown, model_max_length=16)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return CLIPProcessor(image_processor=images, tokenizer=fast)


def make_images(size: int = 32, captions: bool = False) -> Any:
    """Noisy discs and squares in four colours on white, with two captions each on demand."""
    import datasets
    import numpy as np
    from PIL import Image

    rng, rows = np.random.default_rng(0), {"image": [], "label": []}
    colours = np.array([(210, 40, 40), (40, 180, 60), (50, 70, 210), (220, 200, 40)])
    for number in range(size):
        label = number % 4
        pixels = np.full((20, 20, 3), 230.0)
        y, x = np.mgrid[:20, :20] - rng.integers(8, 12, size=2)[:, None, None]
        pixels[x**2 + y**2 < 36 if label < 2 else (abs(x) < 6) & (abs(y) < 6)] = colours[label]
        pixels += rng.normal(0, 12, pixels.shape)
        rows["image"].append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
        rows["label"].append(label)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASS_NAMES)})
    images = datasets.Dataset.from_dict(rows, features=features)
    texts = [[f"a photo of the {CLASS_NAMES[k]}", f"an image of {CLASS_NAMES[k]}"] for k in rows["label"]]
    return images.add_column("captions", texts) if captions else images


def make_trainer(folder: Path, **options: Any) -> Any:
    from hf_pmgaft import OBJECTIVES, PMGAFTConfig, PMGAFTTrainer

    own = ("eval_dataset", "teacher", "guidance_names", "peft_config", "prompt_templates", "train_dataset")
    passed = {key: options.pop(key) for key in own if key in options}
    defaults = dict(output_dir=str(folder), eps="8/255", learning_rate=5e-3, max_steps=3, logging_steps=1)
    defaults |= dict(per_device_train_batch_size=8, per_device_eval_batch_size=8, eval_num_steps=3)
    defaults |= dict(save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, seed=0)
    args = PMGAFTConfig(**{**defaults, **options})
    captions = OBJECTIVES[args.objective].uses_captions
    data = {"train_dataset": make_images(captions=captions), "prompt_templates": "a photo of the {}"}
    return PMGAFTTrainer(make_model(), args, processing_class=make_processor(), **{**data, **passed})


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
    from peft import LoraConfig

    from hf_pmgaft import OBJECTIVES, TUNINGS, PMGAFTConfig

    runs: dict[str, dict[str, Any]] = {name: {"objective": name} for name in OBJECTIVES}
    for name, objective in OBJECTIVES.items():
        runs[f"{name} with other options"] = {"objective": name, "objective_kwargs": other_options(objective)}

    small = {"deep_prompts": {"num_tokens": 2, "depth": 1}, "text_context": {"num_tokens": 3}, "peft": LORA}
    for name in TUNINGS:
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
        "guidance": {"guidance_names": WORDS[7:], "prompt_templates": ["a photo of the {}", "an image of {}"]},
        "stream": {"train_dataset": make_images().to_iterable_dataset()},
        "evaluation": {"eval_dataset": {"set": make_images(12)}, "eval_strategy": "steps", "eval_steps": 2},
    }
    found: dict[str, Any] = {}
    for name, options in runs.items():
        found[name] = trained(part.folder / name, **options)
    defaults = PMGAFTConfig(output_dir=str(part.folder), use_cpu=True).to_dict()
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
    import torch

    from hf_pmgaft import ATTACKS, ZeroShotClassifier, encode_class_names
    from hf_pmgaft.attacks import CORRUPTIONS, SEVERITIES, normal_noise, sample_seeds, uniform_noise

    model, processor = make_model(), make_processor()
    texts = encode_class_names(model, processor, CLASS_NAMES, "a photo of the {}")
    classifier = ZeroShotClassifier.from_model(model, processor, texts)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels, seeds = torch.arange(6) % 4, sample_seeds(0, 3, torch.arange(6))
    with torch.no_grad():
        found = {"texts": texts, "logits": classifier(images), "seeds": seeds}
    for kind, noise in {"uniform": uniform_noise, "normal": normal_noise}.items():
        found[f"{kind} noise"] = [noise(seeds, (3, 5), stream) for stream in range(3)]

    runs: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in sorted(set(ATTACKS) - {"corruption", "patch"}):
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
        found[title] = ATTACKS[name](classifier, images, labels, seeds=seeds, **options)
    return found


def data(part: Part) -> dict[str, Any]:
    """Rows of evaluation sets, retrieval sets and training sets, few shots, and augmented images."""
    import torch

    from hf_pmgaft import RetrievalDataset, ZeroShotDataset
    from hf_pmgaft.data import augment, few_shot, load_images, parse_set, training_examples

    _, processor = emoji(part)
    food = load_images(*parse_set(f"{part.root}/examples/emoji/data:food@validation"))
    sets = {"plain": {}, "resize": {"resize": 48}, "native": {"native_size": True}, "border": {"border": 3}}
    found: dict[str, Any] = {"set": parse_set("NAME:config@split"), "size": len(food)}
    for name, options in sets.items():
        rows = ZeroShotDataset(food, processor, name=name, **options)
        found[name] = {"rows": [rows[i] for i in (0, 7, 50)], "class_names": rows.class_names}
    captions = RetrievalDataset(food, processor, "label,tags", name="captions")
    found["captions"] = [captions[i] for i in (0, 7, 50)]

    examples = training_examples(make_images(captions=True), make_processor(), caption_column="auto")
    found["examples"] = [examples[i] for i in (0, 5)]
    found["few shots"] = [few_shot(examples, 2, seed).sample_ids for seed in range(3)]
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found["augmented"] = [augment(images, torch.arange(4), strength) for strength in (0.0, 0.5, 1.0)]
    return found


def models(part: Part) -> dict[str, Any]:
    """Models at another resolution, for open_clip, in a LLaVA, and class embeddings on disk."""
    from transformers import LlavaForConditionalGeneration

    import hf_pmgaft as package

    model, processor = emoji(part)
    larger, resized = package.at_resolution(model, processor, 64)
    package.save_open_clip(model, processor, part.folder / "open_clip")
    back = package.load_open_clip(part.folder / "open_clip", model)
    package.export_class_embeds(model, processor, ["dog", "red fish"], part.folder / "embeds.safetensors")
    llava = LlavaForConditionalGeneration.from_pretrained(part.root / "examples/emoji/llava")
    package.swap_vision_tower(llava, model)
    return {
        "at resolution": {"weights": larger.state_dict(), "processor": resized.to_dict()},
        "to open_clip": package.to_open_clip(model),
        "from open_clip": back.state_dict(),
        "files": contents(part.folder),
        "vision tower": package.vision_tower(llava).state_dict(),
        "loaded": package.load_model(str(part.root / "examples/emoji/model")).state_dict(),
        "folded": package.fold_into_clip(model).state_dict(),
    }


def reports(part: Part) -> dict[str, Any]:
    """Whole reports and verdict files of every attack; those of the earlier side are opened and gone on with."""
    from hf_pmgaft import RobustnessReport, compare_reports, evaluate_robustness

    found: dict[str, Any] = {}
    evaluations = evaluations_of(part)
    for name, (model, processor, sets, attack_list, options) in evaluations.items():
        file = part.folder / f"{name}.jsonl"
        report = evaluate_robustness(model, processor, sets, attack_list, verdict_file=file, progress=False, **options)
        report.save(part.folder / f"{name}.json")
        seen = {"metrics": report.metrics(), "html": report._repr_html_().splitlines(), "measure": report.measure}
        found[name] = {**report.to_dict(), **seen, "verdict file": [json.loads(x) for x in file.open()]}

    part.wait_for_earlier()
    for name, (model, processor, sets, attack_list, options) in evaluations.items():
        own, saved = (RobustnessReport.load(folder / f"{name}.json") for folder in (part.folder, part.earlier))
        found[name]["saved earlier"] = saved.to_dict()
        found[name]["compared with earlier"] = compare_reports(saved, own).to_dict()
        file = Path(shutil.copy(part.earlier / f"{name}.jsonl", part.folder / f"{name} of earlier.jsonl"))
        lines = file.read_text()
        options = {**options, "verdict_file": file, "progress": False}
        found[name]["from earlier verdicts"] = evaluate_robustness(model, processor, sets, attack_list, **options)
        found[name]["from earlier verdicts"] = found[name]["from earlier verdicts"].to_dict()
        found[name]["nothing computed anew"] = file.read_text() == lines
    return found


def evaluations_of(part: Part) -> dict[str, tuple]:
    """By name: model, processor, sets, attacks and options of an evaluation."""
    from hf_pmgaft import ATTACKS, LinearProbe, NearestClassMean, RetrievalDataset, ZeroShotDataset
    from hf_pmgaft.data import load_images

    # Every attack with few steps, in two radii of L-inf and in other norms
    every = [{"attack": "pgd", "eps": "2/255", "num_steps": 5, "loss": "margin"}]
    for name in sorted(ATTACKS):
        ball = {} if name in ("patch", "corruption") else {"eps": 0.5 if name == "cw" else "4/255"}
        every.append({"attack": name, **ball, **SHORT.get(name, {})})
    every += [{"attack": name, "eps": 0.5, "norm": "l2", **SHORT[name]} for name in ("pgd", "apgd", "square")]
    every += [{"attack": "apgd", "eps": 6.0, "norm": "l1", "num_steps": 5}, {"attack": "pgd", "eps": "1/255"}]
    last = {"verdict": "last_iterate", "max_samples": 6, "batch_size": 4}

    clip, processor = emoji(part)
    folder, template = str(part.root / "examples/emoji/data"), "an emoji of {}"
    load = {name: load_images(folder, name, "test") for name in ("animals", "smileys", "food")}
    named = [ZeroShotDataset(load[name], processor, None, template, name) for name in ("animals", "smileys")]
    captions = [RetrievalDataset(load["food"], processor, "label,tags", name="food captions")]
    pulled = [RetrievalDataset(load["food"], processor, "label", name="food", target="drawn")]
    ranked = [{"attack": "pgd", "eps": eps, "num_steps": 3, "loss": "margin"} for eps in ("2/255", "4/255")]
    ranked += [{"attack": "fgsm", "eps": "4/255"}]
    noisy = [*ranked, {"attack": "corruption", "kind": "jpeg", "severity": 3}]

    # AutoAttack has its own numbers of steps, so the model and its set are tiny.
    tiny, tiny_processor = make_model(), make_processor()
    few, support = (
        ZeroShotDataset(make_images(size), tiny_processor, name=name) for size, name in ((6, "few"), (32, "support"))
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
        "nearest class mean": (tiny, tiny_processor, [few], [default], {"head": NearestClassMean(support)}),
        "linear probe": (tiny, tiny_processor, [few], [default], {"head": LinearProbe(support), "seed": 3}),
    }


def emoji(part: Part) -> tuple:
    """The CLIP of the emoji and its processor."""
    from transformers import AutoProcessor, CLIPModel

    folder = part.root / "examples/emoji/model"
    return CLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def demo(part: Part) -> dict[str, Any]:
    """The embedded default and an adapter by the script: all files of its output, and what it prints."""
    few = ["--max_steps", 6, "--eval_max_samples", 8, "--eval_num_steps", 3, "--logging_steps", 2]
    adapter = ["--objective", "tecoa", "--lora_r", 4, "--ema_decay", 0.5, "--seed", 1, "--shots", 1]
    runs = {"default": [] if part.full else few, "adapter": [*few, *adapter]}
    return {name: run_pmgaft(part, name, *flags) for name, flags in runs.items()}


def recipes(part: Part) -> dict[str, Any]:
    """All recipes as they are written, and two steps of each on the emoji."""
    folders = [part.root / "examples/configs", part.root / "hf_pmgaft/recipes"]
    model, images = part.root / "examples/emoji/model", f"{part.root}/examples/emoji/data:finetune"
    small = ["--model_name_or_path", model, "--dataset_name", images, "--image_column", "image", "--do_eval", "no"]
    small += ["--shots", 1, "--max_steps", 2, "--per_device_train_batch_size", 16, "--logging_steps", 1]
    small += ["--dataloader_num_workers", 0, "--save_strategy", "no"]
    found: dict[str, Any] = {}
    for file in sorted({file.stem: file for folder in folders for file in folder.glob("*.yaml")}.values()):
        # Paths from the recipe's folder are another way where it has moved.
        written = re.sub(r"\{config_dir\}[^\s\"]*/", "", file.read_text(encoding="utf-8"))
        recipe = yaml.safe_load(written)
        flags = ["--caption_column", "tags"] if "caption_column" in recipe else []
        if recipe.get("tuning") == "deep_prompts":
            flags += ["--tuning_kwargs", json.dumps({**recipe["tuning_kwargs"], "depth": 2})]
        found[file.stem] = {"written": recipe, **run_pmgaft(part, file.stem, "--config", file, *small, *flags)}
    return found


def run_pmgaft(part: Part, name: str, *flags: Any) -> dict[str, Any]:
    """What the training script prints and writes."""
    folder = part.folder / name
    printed = script(part, "run_pmgaft.py", *flags, "--output_dir", folder, "--report_to", "none", "--use_cpu", "true")
    return {"printed": printed, "files": contents(folder)}


def outputs(part: Part) -> dict[str, Any]:
    """Tables in all formats, pictures, the comparison of two reports, model cards, and the results that are stored."""
    first, second, found = part.folder / "first.json", part.folder / "second.json", {}
    flags = ["--max_samples", 6, "--num_steps", 3, "--eight_bit", "--eps", "2/255", "4/255"]
    verdicts = ["--verdict_file", part.folder / "verdicts.jsonl", "--output_file", first]
    for style in ("text", "markdown", "latex", "html"):
        found[style] = script(part, "evaluate_robustness.py", *flags, *verdicts, "--format", style)

    model, processor = emoji(part)
    for parameter in model.vision_model.parameters():
        parameter.data.mul_(1.1)
    for half in (model, processor):
        half.save_pretrained(part.folder / "other")
    other = ["--model", part.folder / "other", "--output_file", second]
    found["other model"] = script(part, "evaluate_robustness.py", *flags, *other)
    compared = ["--plots", part.folder / "plots", "--output_file", part.folder / "comparison.json"]
    found["comparison"] = script(part, "evaluate_robustness.py", "--compare", first, second, *compared)

    groups = [f"{part.root}/examples/emoji/data:{name}@validation" for name in ("animals", "flags")]
    unseen = ["--unseen", "--max_samples", 3, "--num_steps", 2, "--plots", part.folder / "unseen"]
    found["unseen"] = script(part, "evaluate_robustness.py", *unseen, "--eval_sets", *groups)
    retrieval = ["--caption_column", "label,tags", "--max_samples", 12, "--num_steps", 2]
    found["retrieval"] = script(part, "evaluate_robustness.py", *retrieval, "--plots", part.folder / "retrieval")
    picture = ["--output_file", part.folder / "gallery.png", "--num_steps", 3]
    found["gallery"] = script(part, "gallery.py", *picture)

    found["files"] = contents(part.folder)
    for pattern in ("autoattack*.json", "comparison.json", "costs*.json", "leaderboard*.json"):
        for file in sorted((part.root / "examples").rglob(pattern)):
            found[f"stored {file.name}"] = content(file)
    return found


def vlm(part: Part) -> dict[str, Any]:
    """The attacked LLaVA on two images, with its own tower and that of the emoji: figures, texts, picture."""
    flags = [
        "--num_images",
        2,
        "--num_steps",
        3,
        "--max_new_tokens",
        8,
        "--towers",
        part.root / "examples/emoji/model",
    ]
    files = {"output_file": "report.json", "verdict_file": "texts.jsonl", "gallery": "gallery.png"}
    for flag, file in files.items():
        flags += [f"--{flag}", part.folder / file]
    return {"printed": script(part, "attack_llava.py", *flags), "files": contents(part.folder)}


PARTS = {
    "demo": demo,
    "steps": steps,
    "resume": resume,
    "attacks": attacks,
    "data": data,
    "models": models,
    "reports": reports,
    "recipes": recipes,
    "outputs": outputs,
    "vlm": vlm,
}


if __name__ == "__main__":
    main()
