"""Recipes over the Hub on loopback, as a user starts them: by Hub names, two steps, few images."""

from __future__ import annotations

import json
import math
import re
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_pmgaft.arguments import RECIPES
from hf_pmgaft.cli import train
from hf_pmgaft.evaluation.report import RobustnessReport
from hf_pmgaft.prompts import prompt_name
from support.hub_server import HubServer
from support.hub_sets import SUITE, put_sets
from support.shards import picture, shard

BASE, LARGE = "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"
PAIRS = "pixparse/cc3m-wds"  # web pairs in shards
CAPTIONED = "data/imagenet-captions"  # a folder of one's own that two recipes name
EDGE = 32
MAX_LENGTH = 77  # tokens, as CLIP has
COLOURS = ("red", "green", "blue", "yellow")
OVERRIDES = ["--max_steps", "2", "--use_cpu", "--dataloader_num_workers", "0", "--report_to", "none"]


# ---- What is on the Hub ----


def put_models(hub: HubServer, layers: int = 10) -> None:
    """Puts tiny CLIPs of true layout on a Hub under the names of OpenAI's. Learned prompts reach into 9 layers."""
    hub.put(BASE, saved(*make_clip(layers)))
    hub.put(LARGE, saved(*make_clip(layers=2, width=48, patch_size=16)))


def put_all(hub: HubServer, layers: int = 10) -> None:
    """Puts on a Hub what recipes name: models, the sixteen sets at their own counts, and web pairs."""
    put_models(hub, layers)
    for repo in put_sets(hub).values():
        repo.granted.add("user")
    hub.put(f"datasets/{PAIRS}", web_pairs())


def saved(*parts: Any) -> dict[str, bytes]:
    """The files that model and processor are saved as."""
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            part.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def make_clip(layers: int, width: int = 32, patch_size: int = 8) -> tuple[CLIPModel, CLIPProcessor]:
    """A tiny CLIP whose special tokens are as OpenAI's: the last ids, found by the largest, whatever the
    configuration says of them; unknown words and padding are the end."""
    processor = make_processor()
    torch.manual_seed(0)
    shared = dict(hidden_size=width, intermediate_size=2 * width, num_attention_heads=2, num_hidden_layers=layers)
    text = {**shared, "vocab_size": len(processor.tokenizer), "max_position_embeddings": MAX_LENGTH}
    text.update(bos_token_id=0, eos_token_id=2, pad_token_id=1, projection_dim=24)
    vision = {**shared, "image_size": EDGE, "patch_size": patch_size, "projection_dim": 24}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():  # the default initialisation is so small that no gradient would be seen
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model, processor


def make_processor() -> CLIPProcessor:
    """Knows each word of the sixteen sets' prompts, and of captions."""
    tokens = [*words(), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(tokens) - 2, len(tokens) - 1
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", start), ("<|endoftext|>", end)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=MAX_LENGTH,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE})
    return CLIPProcessor(image_processor=images, tokenizer=fast)


@cache
def words() -> list[str]:
    """All words of prompts and captions, in a fixed order."""
    texts = ["This is not a photo of a {}.", *map(caption, range(len(COLOURS)))]
    for entry in SUITE.values():
        texts += [entry["prompt_template"], *map(prompt_name, entry["class_names"])]
    return list(dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)))


def caption(row: int) -> str:
    return f"a photo of a {COLOURS[row % len(COLOURS)]} texture ."


def web_pairs(rows: int = 600) -> dict[str, bytes]:
    """Shards of web pairs, with the json beside them that such shards have."""
    members = []
    for row in range(rows):
        key = f"{row:09}"
        members.append((f"{key}.jpg", picture(COLOURS[row % len(COLOURS)], kind="JPEG")))
        members.append((f"{key}.json", {"key": key, "status": "success", "url": f"http://example.com/{key}.jpg"}))
        members.append((f"{key}.txt", caption(row)))
    half = len(members) // 6 * 3
    files = {"cc3m-train-0000.tar": shard(*members[:half]), "cc3m-train-0001.tar": shard(*members[half:])}
    return {"README.md": b"---\nlicense: other\n---\n", **files, "cc3m-validation-0000.tar": shard(*members[:12])}


def write_captioned(folder: Path, rows: int = 300) -> None:
    """Writes a labelled set with captions as the folder that two recipes name."""
    names = SUITE["imagenet"]["class_names"]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=names),
            "caption": datasets.Value("string"),
        }
    )
    columns = {
        "image": [{"bytes": picture(COLOURS[row % len(COLOURS)]), "path": None} for row in range(rows)],
        "label": [row % len(names) for row in range(rows)],
        "caption": [caption(row) for row in range(rows)],
    }
    target = folder / CAPTIONED
    target.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=features).to_parquet(target / "train.parquet")


# ---- One run ----


@dataclass
class Run:
    """What a run was seen to do, and what it wrote.

    Attributes:
        recipe (`str`): Its recipe.
        folder (`Path`): Its output.
        trainer (`PMGAFTTrainer`): The one that ran.
        batches (`list[dict]`): What its steps were given.
        clipped_to (`list[float]`): The norms that gradients were clipped to.
    """

    recipe: str
    folder: Path
    trainer: Any = None
    batches: list[dict[str, torch.Tensor]] = field(default_factory=list)
    clipped_to: list[float] = field(default_factory=list)

    def read(self, name: str) -> dict[str, Any]:
        """A file of JSON beside the model."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @property
    def card(self) -> ModelCard:
        return ModelCard.load(self.folder / "README.md")

    @property
    def report(self) -> RobustnessReport:
        return RobustnessReport.load(self.folder / "robustness.json")

    @property
    def images_per_step(self) -> float:
        """Of all steps that were made."""
        return sum(len(batch["pixel_values"]) for batch in self.batches) / self.trainer.state.global_step

    def figures(self) -> dict[tuple[str, str], float]:
        """The card's figures, by set and metric."""
        results = self.card.data.eval_results
        return {(result.dataset_name, result.metric_type): result.metric_value for result in results}

    def row(self) -> list[str]:
        """What the table of recipes says of it."""
        texts = self.texts()
        means = [value for (name, _), value in self.figures().items() if name.startswith("mean")]
        suite = self.report.provenance.get("suite")
        return [
            f"`{self.recipe}`",
            f'"{texts[0]}"' if texts else "images alone",
            f"{self.images_per_step:g}",
            f"norm {self.clipped_to[0]:g}" if self.clipped_to else "none",
            f"{self.trainer.args.warmup_steps:g}",
            f"{len(self.report.sets)} of {suite}" if suite else str(len(self.report.sets)),
            " / ".join(f"{value:.1f}" for value in means),
        ]

    def texts(self) -> list[str]:
        """The first texts that images were compared with, as the step had them: from tokens back to words."""
        tokenizer = self.trainer.processing_class.tokenizer
        ids = self.batches[0].get("input_ids")
        if ids is None and self.trainer.objective.uses_text:
            ids = self.trainer.texts.live_prompts(self.trainer.model, torch.device("cpu"))["class_embeds"].input_ids
        return [] if ids is None else tokenizer.batch_decode(ids.flatten(0, -2)[:3], skip_special_tokens=True)


def recipe(name: str) -> dict[str, Any]:
    """What a recipe states."""
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


def train_by(name: str, *overrides: str) -> Run:
    """Runs `pmgaft train --recipe NAME` in this process and the current folder, and watches its steps."""
    stated = recipe(name)
    run = Run(name, Path(stated["output_dir"]).absolute())
    make_trainer = train.make_trainer

    def make_watched(*args: Any) -> Any:
        run.trainer = make_trainer(*args)
        compute_loss = run.trainer.compute_loss

        def compute(model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
            run.batches.append(dict(inputs))
            return compute_loss(model, inputs, *args, **kwargs)

        run.trainer.compute_loss = compute
        clip = run.trainer.accelerator.clip_grad_norm_

        def clip_and_note(parameters: Any, max_norm: float, *args: Any) -> Any:
            if max_norm < math.inf:  # else the norm is only measured
                run.clipped_to.append(max_norm)
            return clip(parameters, max_norm, *args)

        run.trainer.accelerator.clip_grad_norm_ = clip_and_note
        return run.trainer

    limit = "--limit" if "suite" in stated else "--eval_max_samples"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_trainer", make_watched)
        train.main(["--recipe", name, *OVERRIDES, limit, "2", *overrides])
    return run
