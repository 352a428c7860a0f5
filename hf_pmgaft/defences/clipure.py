"""CLIPure: the embedding is turned towards what a text without a class is embedded as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..attacks.ball import parse_factor
from ..models.backbones import get_encoder, unwrap
from ..modes import at_least_float32
from ..prompts import DEFAULT_PROMPT_TEMPLATES, check_prompt_templates
from ..registry import check_count
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, check_takes_captions, encode_prompts
from .defence import Defence, check_given, straight_through


class CLIPure(Defence):
    """CLIPure-Cos: purification of the embedding (Zhang et al., ICLR 2025, arXiv 2502.18176).

    `n` is the mean embedding of the prompt templates with nothing in the place of the class. From `u = z / |z|`, N
    times `u <- unit(u + s g / |g|)` with `g = grad_u cos(u, n)`. The norm of `g` is that of each image; the authors
    divide by that of the whole batch.

    One step turns the embedding by `atan(s)` in the plane of `u` and `n`. The authors' `step_size` of 30 turns it past
    `n` and the next step back again: that is [`CLIPureReleased`]. The default is not theirs: small steps, of 5.7
    degrees in all. Larger ones leave little but `n` (ten of 0.1 take the embedded CLIP from 63 of 100 animals to 1).

    `through` has all steps in the graph; `straight_through` has the identity for them, from `z / |z|` on.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        null_embed (`torch.Tensor`): `[D]`, n, of any length; [`CLIPure.of`] encodes it.
        num_steps (`int`): N.
        step_size (`float`): s, in units of the embedding's length.

    Raises:
        ValueError: for a step or a number of them that leaves nothing to do.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> defence = CLIPure.of(classifier, model, processor, prompt_templates=["a photo of the {}"])
        >>> near, before = defence.embed(images), torch.nn.functional.normalize(classifier.embed(images), dim=1)
        >>> bool((near @ defence.null_embed > before @ defence.null_embed).all())
        True
    """

    title = "CLIPure"
    needs_classes = False

    def __init__(
        self, classifier: ZeroShotClassifier, null_embed: torch.Tensor, *, num_steps: int = 10, step_size: float = 0.01
    ):
        super().__init__(classifier)
        self.null_embed = null_embed
        self.num_steps = check_count("num_steps", num_steps)
        self.step_size = parse_factor(step_size)

    @classmethod
    def of(
        cls,
        classifier: ZeroShotClassifier,
        model: nn.Module | None = None,
        processor: Any = None,
        class_names: Sequence[str] | None = None,
        prompt_templates: str | Sequence[str] | None = None,
        **options: Any,
    ) -> CLIPure:
        """The defence of an encoder's classifier, with the encoder's own text of no class."""
        check_given(cls.title, model=model, processor=processor)
        templates = check_prompt_templates(prompt_templates or DEFAULT_PROMPT_TEMPLATES)
        prompts = ClassPrompts.of_captions(model, processor, [""], templates)
        return cls(classifier, encode_prompts(model, prompts)[0], **options)

    @classmethod
    def check(cls, model: nn.Module, processor: Any, has_head: bool) -> None:
        if not get_encoder(unwrap(model)).text_modules:
            raise ValueError(
                f"CLIPure turns embeddings towards that of a text without a class, and a {type(model).__name__} has "
                "no text tower. Pass a model with one, or take a defence of pixels, such as 'ttc'."
            )
        check_takes_captions(model)

    def embed(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        self.check_call(images, seeds, attacker)
        embeds = F.normalize(at_least_float32(self.classifier.embed(images)), dim=-1)
        if attacker == "through":
            return self.purify(embeds)
        return straight_through(self.purify(embeds.detach()), embeds)

    def purify(self, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings of unit norm `[B,D]`, turned towards n and of unit norm again."""
        null = F.normalize(self.null_embed, dim=0).to(embeds)
        for _ in range(self.num_steps):
            cosine = (embeds * null).sum(-1, keepdim=True)
            gradient = null - cosine * embeds
            embeds = F.normalize(embeds + self.step_size * F.normalize(gradient, dim=-1), dim=-1)
        return embeds

    def logits(self, embeds: torch.Tensor) -> torch.Tensor:
        # They are of unit norm. To normalise them again would turn the gradient of `straight_through`.
        classifier = self.classifier
        with torch.autocast(embeds.device.type, enabled=False):
            return classifier.logit_scale * embeds @ classifier.class_embeds.to(embeds.dtype).T + classifier.logit_bias


class CLIPureReleased(CLIPure):
    """CLIPure at its authors' setting, which gives back its input: ten steps of 30.

    A step turns the embedding past `n`, by 88.1 degrees, and the next one turns it back by as much. So nothing changes
    for an image within 88.1 degrees of `n`, neither the logits nor their gradient, and who attacks the bare model has
    attacked this one. An embedding from beyond ends across `n`.

    Its arguments are those of [`CLIPure`].

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> near = classifier.embed(images[0:1])[0].detach()
        >>> defence = CLIPureReleased(classifier, near + 0.5)
        >>> torch.allclose(defence(images[:1]), classifier(images[:1]), atol=1e-4)
        True
    """

    title = "CLIPure as released"

    def __init__(
        self, classifier: ZeroShotClassifier, null_embed: torch.Tensor, *, num_steps: int = 10, step_size: float = 30.0
    ):
        super().__init__(classifier, null_embed, num_steps=num_steps, step_size=step_size)
