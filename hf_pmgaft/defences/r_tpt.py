"""R-TPT: prompts that are tuned for each image on crops of it, which then vote by how much they are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attacks.ball import parse_factor
from ..models.backbones import BACKBONES, get_encoder, unwrap
from ..models.processors import tokenizer_of
from ..modes import at_least_float32
from ..prompts import check_class_names, prompt_name
from ..registry import check_count
from ..tuning.base import attachment_of
from ..tuning.prompt_tokens import with_text_tokens
from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.text import ClassPrompts, tokenize
from .augmix import augmix
from .crops import resized_crops
from .defence import Defence, check_given

CONTEXT = "a photo of a"
ADAM_EPS = 1e-8


class RTPT(Defence):
    """Robust test-time prompt tuning (Sheng et al., CVPR 2025, arXiv 2504.11195).

    Views of an image are the image and V - 1 random crops of it, resized and mirrored. One step of AdamW on the
    context of the prompts, which begins anew for each image as "a photo of a", lowers the mean entropy of the surest
    views. Logits are then the mean over views by weights `softmax(r / temperature)`, where r of a view is the mean of
    its highest cosines to other views. For sets other than ImageNet's the authors have AugMix on top of the crops:
    `augmix=True`, in which posterise and equalise have the identity for their derivative, which is zero.

    `through` has the step and the weights in the graph; `straight_through` takes the tuned prompts and the weights as
    constants.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.
        context (`torch.Tensor`): `[M,d]`, where the context begins.
        encode_classes (`Callable`): Context `[M,d]` -> class embeddings `[K,D]`, unit norm. [`RTPT.of`] makes both.
        num_views (`int`): V.
        learning_rate, weight_decay (`float`): Of AdamW.
        share (`float`): Of the views, how many are the surest.
        neighbours (`int`): How many of the highest cosines count.
        temperature (`float`): See above.
        augmix (`bool`): Whether crops are mixed with operations on them, see `hf_pmgaft.defences.augmix`.

    Raises:
        ValueError: for too few views, and numbers that leave nothing to do.

    Example:
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> defence = RTPT.of(classifier, model, processor, class_names, num_views=32)
        >>> defence(images[:2], seeds=torch.arange(2)).shape
        torch.Size([2, 4])
    """

    title = "R-TPT"
    is_random = True
    has_embeds = False

    def __init__(
        self,
        classifier: ZeroShotClassifier,
        context: torch.Tensor,
        encode_classes: Callable[[torch.Tensor], torch.Tensor],
        *,
        num_views: int = 64,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.01,
        share: float = 0.1,
        neighbours: int = 20,
        temperature: float = 0.01,
        augmix: bool = False,
    ):
        super().__init__(classifier)
        self.context = context
        self.encode_classes = encode_classes
        self.num_views = check_count("num_views", num_views)
        self.learning_rate = parse_factor(learning_rate)
        self.weight_decay = weight_decay
        self.share = parse_factor(share)
        self.neighbours = check_count("neighbours", neighbours)
        self.temperature = parse_factor(temperature)
        self.augmix = augmix

        if num_views <= neighbours:
            raise ValueError(
                f"You passed {num_views} views with {neighbours} neighbours, but a view has only {num_views - 1} "
                "others. Pass more num_views or fewer neighbours."
            )
        if not 1 <= int(share * num_views) <= num_views:
            raise ValueError(
                f"You passed share={share}, which of {num_views} views are {int(share * num_views)}. Pass a share up "
                "to 1 that leaves at least one."
            )

    @classmethod
    def of(
        cls,
        classifier: ZeroShotClassifier,
        model: nn.Module | None = None,
        processor: Any = None,
        class_names: Sequence[str] | None = None,
        prompt_templates: str | Sequence[str] | None = None,
        **options: Any,
    ) -> RTPT:
        """The defence of an encoder's classifier of class names; its prompts have their context for a template."""
        check_given(cls.title, model=model, processor=processor, class_names=class_names)
        names = [prompt_name(name) for name in check_class_names(class_names)]
        ids, mask = tokenize(model, tokenizer_of(processor), [CONTEXT], truncation=False)
        ids = ids[:, 1 : int(mask.sum()) - 1].to(classifier.device)  # without start and end
        context = unwrap(model).text_model.embeddings.token_embedding(ids)[0].detach()

        prompts = ClassPrompts.behind_context(model, processor, names, len(context))
        length, positions = prompts.input_ids.shape[1], get_encoder(unwrap(model)).text_positions(model)
        if length > positions:
            raise ValueError(
                f"R-TPT's prompts of class names as long as {max(names, key=len)!r} take {length} tokens of the "
                f"model's {positions}. Shorten the names, or take another defence."
            )
        return cls(classifier, context, partial(encode_behind, model, prompts.to(classifier.device)), **options)

    @classmethod
    def check(cls, model: nn.Module, processor: Any, has_head: bool) -> None:
        if has_head:
            raise ValueError(
                "R-TPT tunes the prompts of class names, and a head has learned its classes from images. Leave the "
                "head out, or take another defence, such as 'ttc'."
            )
        if not get_encoder(unwrap(model)).takes_prompts:
            families = sorted(name for name, row in BACKBONES.items() if row.takes_prompts)
            raise ValueError(
                f"You passed a {type(model).__name__} with R-TPT, which tunes tokens in the text tower of "
                f"{' and '.join(families)}. Pass one of these, or take another defence, such as 'ttc'."
            )
        attachment = attachment_of(model)
        if attachment is not None and attachment.enabled and attachment.num_text_tokens:
            raise ValueError(
                f"You passed a model with {type(attachment.options).__name__}, whose learned prompts stand where "
                "R-TPT tunes its own. Pass the model without them, or take another defence, such as 'ttc'."
            )

    def __call__(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        self.check_call(images, seeds, attacker)
        untuned = self.untuned()
        logits = []
        for image, seed in zip(images.split(1), seeds.split(1), strict=True):
            logits.append(self.vote(self.views(image, seed), untuned, attacker))
        return torch.stack(logits)

    def untuned(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The context `[M,d]` at which each image begins, and class embeddings `[K,D]` with a gradient to it."""
        with torch.enable_grad():
            context = self.context.detach().requires_grad_()
            return context, self.encode_classes(context)

    def views(self, image: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        """Views `[V,3,S,S]` of one image `[1,3,H,W]`, of the model's size S: first it itself, then crops,
        each mixed with operations on it if so asked."""
        plain = self.classifier.at_model_size(image)
        crops = resized_crops(image, seed, self.num_views - 1, plain.shape[-1])[0]
        return torch.cat([plain, augmix(crops, seed) if self.augmix else crops])

    def vote(
        self, views: torch.Tensor, untuned: tuple[torch.Tensor, torch.Tensor], attacker: str = "through"
    ) -> torch.Tensor:
        """Logits `[K]` of one image by its views `[V,3,S,S]`."""
        features = F.normalize(at_least_float32(self.classifier.embed(views)), dim=-1)
        is_differentiated = attacker == "through" and torch.is_grad_enabled()
        with torch.set_grad_enabled(is_differentiated):
            weights = self.weights(features)
            class_embeds = self.tuned(features, *untuned)
        return weights @ self._logits(features, class_embeds)

    def weights(self, features: torch.Tensor) -> torch.Tensor:
        """How much each view counts, `[V]`, by its unit features `[V,D]`."""
        cosines = features @ features.T
        itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
        nearest = cosines.masked_fill(itself, -torch.inf).topk(self.neighbours, dim=1).values
        return torch.softmax(nearest.mean(1) / self.temperature, 0)

    def tuned(self, features: torch.Tensor, context: torch.Tensor, class_embeds: torch.Tensor) -> torch.Tensor:
        """Class embeddings `[K,D]` after one step of AdamW for views with unit features `[V,D]`.

        Args:
            context, class_embeds (`torch.Tensor`): As of [`RTPT.untuned`].
        """
        is_differentiated = torch.is_grad_enabled() and features.requires_grad
        with torch.enable_grad():
            logits = self._logits(features, class_embeds)
            entropies = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
            surest = entropies.detach().argsort()[: int(self.share * len(features))]
            loss = entropies[surest].mean()
        gradient = torch.autograd.grad(loss, context, create_graph=is_differentiated, retain_graph=True)[0]

        # The first step: both moments are the gradient's own, whatever the rates at which they decay.
        step = gradient / (gradient.abs() + ADAM_EPS)
        tuned = context.detach() * (1 - self.learning_rate * self.weight_decay) - self.learning_rate * step
        return self.encode_classes(tuned)

    def _logits(self, features: torch.Tensor, class_embeds: torch.Tensor) -> torch.Tensor:
        return self.classifier.replace(class_embeds=class_embeds).logits(features)


def encode_behind(model: nn.Module, prompts: ClassPrompts, context: torch.Tensor) -> torch.Tensor:
    """Class embeddings `[K,D]` of prompts with places for context `[M,d]`, with derivatives of any order to it.

    Example:
        >>> prompts = ClassPrompts.behind_context(model, processor, class_names, num_tokens=3)
        >>> encode_behind(model, prompts, torch.zeros(3, 16)).shape
        torch.Size([4, 24])
    """
    # Other kernels of attention have first derivatives alone.
    with with_text_tokens(model, context), sdpa_kernel(SDPBackend.MATH):
        return prompts.embed(model)
