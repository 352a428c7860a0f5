"""The texts that training compares images with: class names, their templates, and names for guidance."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..models.backbones import get_encoder, unwrap_peft
from ..objectives import Objective
from ..tuning import keeps_weights, without_tuning
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, encode_prompts


@dataclass
class Texts:
    """The texts of a run, encoded once for each model, or anew in each step where training changes them.

    Args:
        processor (`CLIPProcessor`): Its tokenizer makes the prompts.
        class_names (`list[str]`, *optional*): One per label; none for objectives over captions or image features.
        prompt_templates (`list[str]`): Each with one `{}`.
        guidance_names (`list[str]`, *optional*): Names that guidance terms range over instead of the classes.
        non_class_template (`str`, *optional*): A prompt that denies the class (Comp-TGA).

    Example:
        >>> texts = Texts(processor, class_names, ["a photo of the {}"])
        >>> texts.head(model).class_embeds.shape
        torch.Size([4, 24])
    """

    processor: Any
    class_names: Sequence[str] | None
    prompt_templates: Sequence[str]
    guidance_names: Sequence[str] | None = None
    non_class_template: str | None = None

    def head(
        self,
        model: nn.Module,
        *,
        logit_scale: float | None = None,
        image_processor: Any = None,
        with_text: bool = True,
        device: torch.device | None = None,
    ) -> ZeroShotClassifier:
        """The classifier of a model against these texts, encoded by its text tower as it is now.

        Args:
            model: Plain or PEFT model, on any device.
            logit_scale (`float`, *optional*): What cosines are multiplied by; the model's own scale if not given.
            image_processor (*optional*): Has the model's pixel statistics, if they are not those of `processor`.
            with_text (`bool`): Whether the model has a text tower that is asked at all.
            device (`torch.device`, *optional*): Of training; the model's if not given.
        """
        device = device or next(model.parameters()).device

        def encode(names: Sequence[str] | None, templates: Sequence[str]) -> torch.Tensor | None:
            if names is None or not with_text:
                return None
            return encode_prompts(model, ClassPrompts.of(model, self.processor, names, templates)).to(device)

        class_embeds = encode(self.class_names, self.prompt_templates)
        if class_embeds is None:
            width = get_encoder(model).width(unwrap_peft(model).config)
            class_embeds = torch.zeros(0, width, device=device)
        classifier = ZeroShotClassifier.from_model(
            model,
            image_processor or self.processor,
            class_embeds,
            logit_scale=logit_scale,
            guidance_embeds=encode(self.guidance_names, self.prompt_templates),
        )

        if self.non_class_template is None:
            return classifier
        return classifier.replace(non_class_embeds=encode(self.class_names, [self.non_class_template]))

    def live_prompts(self, model: nn.Module, device: torch.device) -> dict[str, ClassPrompts]:
        """The prompts that are encoded anew in each step, by the attribute of the classifier that they fill."""
        lists = {"class_embeds": self.class_names, "guidance_embeds": self.guidance_names}
        return {
            name: ClassPrompts.of(model, self.processor, names, self.prompt_templates).to(device)
            for name, names in lists.items()
            if names is not None
        }


def encode_heads(
    objective: Objective,
    texts: Texts,
    model: nn.Module,
    teacher: nn.Module | None = None,
    teacher_processor: Any = None,
    device: torch.device | None = None,
) -> tuple[ZeroShotClassifier, ZeroShotClassifier]:
    """The heads of student and teacher, each with its own texts, encoded by the models as they came.

    Args:
        model: The plain student. What its tuning adds is switched off while texts are encoded.
        teacher (*optional*): A dual encoder of its own; without one the student's texts are the teacher's too.
        teacher_processor (*optional*): Has its pixel statistics, if they are not the student's.
        device (`torch.device`, *optional*): Of training; the student's if not given.
    """
    device = device or next(model.parameters()).device
    with without_tuning(model) if keeps_weights(model) else contextlib.nullcontext():
        has_text = bool(get_encoder(model).text_modules)
        student_head = texts.head(model, logit_scale=objective.logit_scale, with_text=has_text, device=device)
    if teacher is None:
        return student_head, student_head

    teacher_head = texts.head(
        teacher,
        logit_scale=objective.logit_scale,
        image_processor=teacher_processor,
        with_text=objective.uses_text,
        device=device,
    )
    return student_head, teacher_head
