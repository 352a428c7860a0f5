"""One training step: as commonly written, by the package, and as a bare loop of the same arithmetic."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator
from typing import Any

import datasets
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer
from hf_pmgaft.data import load_images
from hf_pmgaft.models.backbones import get_backbone
from hf_pmgaft.objectives.terms import kl_divergence
from hf_pmgaft.zero_shot import encode_class_names

from .common import EMOJI, make_model

EPS = 4 / 255
LORA = {"r": 8, "target_modules": r".*vision_model.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"}
Case = dict[str, Any]


def emoji_images() -> datasets.Dataset:
    """The embedded set to fine-tune on."""
    return load_images(str(EMOJI / "data"), "finetune", "train")


class Ours:
    """The package's trainer, whose step is what `Trainer.train` does in one."""

    def __init__(self, case: Case, folder: str, **options: Any):
        model, processor = make_model(case["model"])
        if case["model"] == "embedded default" and not case.get("noise"):
            names = None
            rows = emoji_images()
        else:
            names = [f"thing {i}" for i in range(max(case["prompts"], 2))]
            rows = noise_images(2 * case["batch_size"], len(names), processor)

        defaults = dict(
            output_dir=folder,
            objective=case["method"],
            tuning="vision_tower" if case["tuning"] in ("full", "lora") else case["tuning"],
            eps=str(EPS),
            num_steps=case["num_steps"],
            per_device_train_batch_size=case["batch_size"],
            max_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=case.get("device", "cpu") == "cpu",
            bf16=case.get("bf16", False),
        )
        self.trainer = PMGAFTTrainer(
            model,
            PMGAFTConfig(**{**defaults, **options}),
            train_dataset=rows,
            class_names=names,
            processing_class=processor,
            peft_config=LoraConfig(**LORA) if case["tuning"] == "lora" else None,
        )

        self.trainer.current_gradient_accumulation_steps = 1
        self.trainer.create_optimizer()
        self.batches = itertools.chain.from_iterable(itertools.repeat(self.trainer.get_train_dataloader()))
        self.batch = next(self.batches)

    def step(self) -> None:
        trainer = self.trainer
        trainer.training_step(trainer.model, dict(self.batch))
        trainer.optimizer.step()
        trainer.model.zero_grad()


class Written:
    """A step that is written out here: the model, its teacher, texts and optimizer, and their commonest use."""

    text_cached = True

    def __init__(self, case: Case, batch: dict[str, torch.Tensor]):
        self.case, self.batch = case, batch
        device = torch.device(case.get("device", "cpu"))
        self.model, processor = make_model(case["model"])
        self.teacher = copy.deepcopy(self.model.to(device)).eval()
        self.mean, self.std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
        )

        # Texts
        names = [f"thing {i}" for i in range(max(case["prompts"], 2))]
        if case["model"] == "embedded default":
            names = emoji_images().features["label"].names
        tokens = processor.tokenizer(
            [f"This is a photo of a {name}" for name in names],
            padding="max_length",
            max_length=self.model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).to(device)
        self.prompts = {key: tokens[key] for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            self.texts = encode_class_names(self.model, processor, names)
            self.scale = self.model.logit_scale.exp().item()

        # What is trained
        if case["tuning"] == "lora":
            self.model = get_peft_model(self.model, LoraConfig(**LORA))
        self.freeze()
        trained = [p for name, p in self.model.named_parameters() if self.is_trained(name, p)]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=1e-4)

    def is_trained(self, name: str, parameter: nn.Parameter) -> bool:
        vision = "vision_model" in name or "visual_projection" in name
        return parameter.requires_grad and (vision and (self.case["tuning"] != "lora" or "lora_" in name))

    def freeze(self) -> None:
        """Freezes nothing: as commonly written, all weights keep a gradient, and the optimizer leaves some out."""

    def precision(self) -> torch.autocast:
        return torch.autocast(self.mean.device.type, torch.bfloat16, enabled=self.case.get("bf16", False))

    def embeds(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with self.precision():
            return model.get_image_features(pixel_values=(images - self.mean) / self.std).pooler_output.float()

    def logits(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if not self.text_cached:
            with self.precision():
                return model(pixel_values=(images - self.mean) / self.std, **self.prompts).logits_per_image.float()
        return self.scale * F.normalize(self.embeds(model, images), dim=-1) @ self.texts.T

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        """The teacher's embeddings of images for FARE, else its logits."""
        return (self.embeds if self.case["method"] == "fare" else self.logits)(self.teacher, images)

    def attack_loss(self, points: torch.Tensor, labels: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
        if self.case["method"] == "fare":
            return (self.embeds(self.model, points) - target).square().sum()
        return F.cross_entropy(self.logits(self.model, points), labels, reduction="sum")

    def gradient(self, loss: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        loss.backward()
        return points.grad

    def step(self) -> None:
        images = (self.batch["pixel_values"] * self.std + self.mean).clamp(0, 1)
        labels, method = self.batch["labels"], self.case["method"]

        # Attack
        target = self.guide(images) if method == "fare" else None
        points = (images + (2 * torch.rand_like(images) - 1) * EPS).clamp(0, 1)
        self.model.eval()
        with self.attacking():
            for _ in range(self.case["num_steps"]):
                points.requires_grad_()
                fixed = None if target is None else target.detach()
                gradient = self.gradient(self.attack_loss(points, labels, fixed), points)
                step = 2.5 * EPS / self.case["num_steps"] * gradient.sign()
                points = (images + (points.detach() + step - images).clamp(-EPS, EPS)).clamp(0, 1)

        # Loss
        self.model.train()
        if method == "fare":
            loss = (self.embeds(self.model, points) - target).square().sum(1).mean()
        else:
            logits = self.logits(self.model, points)
            loss = F.cross_entropy(logits, labels)
        if method == "pmg_aft":
            loss = loss + kl_divergence(self.guide(points), logits).mean()
            loss = loss + kl_divergence(self.logits(self.model, images), logits).mean()

        loss.backward()
        self.optimizer.step()
        self.release()

    def attacking(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def release(self) -> None:
        self.optimizer.zero_grad()


class Plain(Written):
    """As the released code of PMG-AFT has it: prompts encoded in every pass, `loss.backward()` in the attack, whose
    parameter gradients nobody asked for, and a teacher with a graph."""

    text_cached = False


class PlainCached(Written):
    """The same with the text encoded once, by hand."""


class Bare(Written):
    """The arithmetic that the algorithm needs and no more, with the lean image tower: the loop that the package is
    measured against."""

    def embeds(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with self.precision():
            return get_backbone(model).image_embeds(model, (images - self.mean) / self.std).float()

    def freeze(self) -> None:
        self.teacher.requires_grad_(False)
        if self.case["tuning"] != "lora":
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_("vision_model" in name or "visual_projection" in name)
        else:
            self.teacher = None  # the same weights with the adapter off
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        teacher = self.teacher or self.model
        off = contextlib.nullcontext() if self.teacher is not None else self.model.disable_adapter()
        with torch.no_grad(), off:
            return (self.embeds if self.case["method"] == "fare" else self.logits)(teacher, images)

    def gradient(self, loss: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, points)[0]

    @contextlib.contextmanager
    def attacking(self) -> Iterator[None]:
        for parameter in self.trained:
            parameter.requires_grad_(False)
        yield
        for parameter in self.trained:
            parameter.requires_grad_(True)

    def release(self) -> None:
        self.model.zero_grad()


WRITTEN = {"plain": Plain, "plain, text cached": PlainCached, "bare loop": Bare}


def noise_images(count: int, classes: int, processor: Any) -> list[dict[str, Any]]:
    """Processor-made rows of pixels drawn uniformly."""
    images, draw = processor.image_processor, torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.image_mean, images.image_std))
    shape = (3, images.crop_size["height"], images.crop_size["width"])
    return [
        {"pixel_values": (torch.rand(shape, generator=draw) - mean) / std, "labels": i % classes} for i in range(count)
    ]
