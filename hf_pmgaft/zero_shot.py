"""The zero-shot head: class names and templates -> text embeddings; images in [0,1] -> logits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .backbones import get_backbone, get_encoder, unwrap, unwrap_peft
from .distributed import gather_rows
from .modes import at_least_float32
from .prompts import DEFAULT_PROMPT_TEMPLATES, check_class_names, check_prompt_templates, prompt_name
from .tuning.base import attachment


@dataclass(frozen=True)
class ClassPrompts:
    """Tokenised prompts of K classes by T templates.

    Args:
        input_ids, attention_mask (`torch.Tensor`): `[K*T, L]`, int64; those of a class follow each other.
        num_templates (`int`): T.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    num_templates: int

    @classmethod
    def of(
        cls, model: nn.Module, processor: Any, class_names: Sequence[str], prompt_templates: str | Sequence[str]
    ) -> ClassPrompts:
        """The prompts of class names; a model with learned context gets its places for it instead of a template."""
        names = [prompt_name(name) for name in check_class_names(class_names)]
        templates, tokenizer = check_prompt_templates(prompt_templates), getattr(processor, "tokenizer", processor)
        added = attachment(unwrap(model))
        learned = added.num_text_tokens if added is not None and added.enabled else 0
        if learned:
            added.check_classes(names)
            templates = ["{}."]
        prompts = [template.format(name) for name in names for template in templates]
        ids, mask = tokenize(model, tokenizer, prompts, truncation=not learned)
        if learned:
            ids, mask = (torch.cat([x[:, :1].expand(-1, 1 + learned), x[:, 1:]], dim=1) for x in (ids, mask))
            places = get_backbone(unwrap(model)).text_positions(model)
            if ids.shape[1] > places:
                longest = max(names, key=len)
                raise ValueError(
                    f"The model learned {learned} tokens of context, with which class names as long as {longest!r} "
                    f"take {ids.shape[1]} of its {places} text positions. Train with num_tokens="
                    f"{learned - ids.shape[1] + places} or fewer, or shorten the names."
                )
        return cls(ids, mask, len(templates))

    @classmethod
    def of_captions(
        cls, model: nn.Module, processor: Any, captions: Sequence[str], prompt_templates: Sequence[str]
    ) -> ClassPrompts:
        """Captions as prompts, to the letter; what is longer than the tokenizer's `model_max_length` is cut."""
        prompts = [template.format(text) for text in captions for template in prompt_templates]
        return cls(*tokenize(model, getattr(processor, "tokenizer", processor), prompts), len(prompt_templates))

    def to(self, device: torch.device) -> ClassPrompts:
        """The same prompts on a device."""
        return replace(self, input_ids=self.input_ids.to(device), attention_mask=self.attention_mask.to(device))

    def embed(self, model: nn.Module, batch_size: int | None = None) -> torch.Tensor:
        """Class embeddings `[K,D]`, float32, unit norm; with a gradient to what of the text side is trained.

        Args:
            model: Wrapped or not.
            batch_size (`int`, *optional*): Prompts at once, cut to the longest of them; all if not given.
        """
        backbone, device, embeds = get_backbone(unwrap(model)), next(model.parameters()).device, []
        for start in range(0, len(self.input_ids), batch_size or len(self.input_ids)):
            part = slice(start, None if batch_size is None else start + batch_size)
            # All of them are padded to the longest already.
            length = None if batch_size is None else int(self.attention_mask[part].sum(1).max())
            ids, mask = (x[part, :length].to(device) for x in (self.input_ids, self.attention_mask))
            embeds.append(F.normalize(backbone.text_embeds(model, ids, mask).float(), dim=-1))
        mean = torch.cat(embeds).unflatten(0, (-1, self.num_templates)).mean(dim=1)
        return F.normalize(mean, dim=-1)


def check_takes_captions(model: nn.Module) -> None:
    """Raises `ValueError` for a model whose learned prompts leave no place for captions."""
    added = attachment(unwrap(model))
    if added is not None and added.enabled and not added.takes_captions:
        raise ValueError(
            "You passed captions with a model that learned prompts for class names, which have no place in captions. "
            "Pass a model whose tuning takes captions, such as a plain one."
        )


def tokenize(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], truncation: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, `[N,L]`, padded to the longest text, or to the length of the model's family."""
    backbone = get_backbone(unwrap(model))
    length = {"padding": True}
    if backbone.full_text:
        length = {"padding": "max_length", "max_length": backbone.text_positions(model)}
    tokens = tokenizer(list(texts), **length, truncation=truncation, return_tensors="pt", return_attention_mask=True)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    return ids, torch.ones_like(ids) if backbone.full_text else mask


@torch.no_grad()
def encode_class_names(
    model: nn.Module,
    processor: Any,
    class_names: Sequence[str],
    prompt_templates: str | Sequence[str] = DEFAULT_PROMPT_TEMPLATES,
    batch_size: int = 256,
) -> torch.Tensor:
    """Class embeddings of the zero-shot head (CLIP, arXiv 2103.00020, section 3.1.4).

    The text embedding of each template is normalised, the mean over templates taken and normalised again. Context that
    was learned stands in place of the templates.

    Args:
        model (dual encoder or PEFT model): Its text tower is run once over all prompts.
        processor (`CLIPProcessor` or tokenizer): Tokenizes the prompts; they are padded to the longest of a batch.
        class_names (`list[str]`): K names, distinct and not empty.
        prompt_templates (`str` or `list[str]`): Each with one `{}`.

    Returns:
        `torch.Tensor`: `[K, D]`, float32, unit norm, on the model's device.
    """
    prompts = ClassPrompts.of(model, processor, class_names, prompt_templates)
    return encode_prompts(model, prompts, batch_size)


@torch.no_grad()
def encode_prompts(model: nn.Module, prompts: ClassPrompts, batch_size: int = 256) -> torch.Tensor:
    """Embeddings of prompts, `[K,D]`, float32, unit norm, by the text tower in eval mode, `batch_size` at once."""
    training = model.training
    model.eval()
    added = attachment(unwrap(model))
    whole = added is not None and added.enabled and added.num_text_tokens  # vectors of each class fit the whole list
    embeds = prompts.embed(model, None if whole else batch_size)
    model.train(training)
    return embeds


def pixel_statistics(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation by which the processor normalises images in [0,1]."""
    image_processor = getattr(processor, "image_processor", processor)
    if not hasattr(image_processor, "image_mean"):
        raise TypeError(
            f"You passed a {type(processor).__name__} as `processing_class`, which holds no pixel statistics, so "
            "images cannot be taken back to [0,1]. Pass the model's CLIPProcessor."
        )
    if not getattr(image_processor, "do_normalize", True):
        return [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    return list(image_processor.image_mean), list(image_processor.image_std)


class ZeroShotClassifier:
    """Images in [0,1] -> logits `logit_scale * cos(image, text) + logit_bias`, with a gradient to the images.

    Images of another size than the model's are resized in the graph (bicubic), so that small images can be attacked
    at their native size.

    Args:
        encode_image (`Callable`): Normalised pixel values `[B,3,H,W]` -> embeddings `[B,D]`, un-normalised.
        class_embeds (`torch.Tensor`): `[K,D]`, unit norm, but for a linear probe, whose weights they are.
        logit_scale (`float`): What cosines are multiplied by (CLIP: 100).
        image_mean, image_std (`list[float]`): The processor's statistics.
        image_size (`int`, *optional*): The model's input size; `None` never resizes.
        guidance_embeds (`torch.Tensor`, *optional*): `[V,D]`, unit norm: the text list that guidance terms range over;
            the classes themselves if not given.
        logit_bias (`float` or `torch.Tensor`): What is then added, one number or `[K]` (SigLIP: about -10 to -17).

    Objectives that need them find beside these: `non_class_embeds` `[K,D]`, of prompts that deny the class (Comp-TGA);
    `caption_embeds` `[B,D]`, of the batch's captions; `learned`, the objective's own parameters by name.
    """

    non_class_embeds: torch.Tensor | None = None
    caption_embeds: torch.Tensor | None = None
    learned: Mapping[str, torch.Tensor] = MappingProxyType({})
    encode_patches: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None

    def __init__(
        self,
        encode_image: Callable[[torch.Tensor], torch.Tensor],
        class_embeds: torch.Tensor,
        logit_scale: float,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        image_size: int | None = None,
        guidance_embeds: torch.Tensor | None = None,
        logit_bias: float | torch.Tensor = 0.0,
    ):
        self.encode_image = encode_image
        self.class_embeds = class_embeds
        self.guidance_embeds = guidance_embeds
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias
        self.image_size = image_size
        self.mean = torch.tensor(image_mean, device=class_embeds.device).view(1, -1, 1, 1)
        self.std = torch.tensor(image_std, device=class_embeds.device).view(1, -1, 1, 1)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        processor: Any,
        class_embeds: torch.Tensor,
        *,
        encode_image: Callable[[torch.Tensor], torch.Tensor] | None = None,
        logit_scale: float | None = None,
        guidance_embeds: torch.Tensor | None = None,
    ) -> ZeroShotClassifier:
        """The classifier of an encoder; `encode_image` puts another image tower in the model's place."""
        backbone, plain = get_encoder(model), unwrap_peft(model)
        if encode_image is None:

            def encode_image(pixel_values):
                return backbone.image_embeds(model, pixel_values)

        mean, std = pixel_statistics(processor)
        scale = backbone.logit_scale(plain).item() if logit_scale is None else logit_scale
        size, bias = backbone.image_size(plain), backbone.logit_bias(plain).item()
        return cls(encode_image, class_embeds, scale, mean, std, size, guidance_embeds, bias)

    def by(
        self,
        encode_image: Callable[[torch.Tensor], torch.Tensor],
        encode_patches: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> ZeroShotClassifier:
        """The same head on another image encoder, and one that gives embeddings `[B,D]` and patches `[B,h,w,D]`."""
        return self.replace(encode_image=encode_image, encode_patches=encode_patches)

    def replace(self, **values: Any) -> ZeroShotClassifier:
        """A copy with other attributes, such as `class_embeds` that are encoded anew in each step."""
        other = copy.copy(self)
        vars(other).update(values)
        return other

    def detached(self) -> ZeroShotClassifier:
        """The same classifier with its texts, and what its objective learned, as constants."""
        fixed = {name: value.detach() for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return self.replace(**fixed, learned={name: value.detach() for name, value in self.learned.items()})

    @property
    def device(self) -> torch.device:
        """Where images are taken."""
        return self.class_embeds.device

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Un-normalised projected embeddings `[B,D]` of images in [0,1] `[B,3,H,W]`."""
        return self.encode_image(self.pixel_values(images))

    def embed_with_patches(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings `[B,D]` and patch tokens `[B,h,w,D]`, projected and un-normalised, by one pass."""
        return self.encode_patches(self.pixel_values(images))

    def pixel_values(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0,1] as the encoder takes them: of the model's size, normalised."""
        if self.image_size is not None and images.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False)
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)

    def logits(self, embeds: torch.Tensor) -> torch.Tensor:
        """Logits `[B,K]` of embeddings `[B,D]` against the classes."""
        return self._logits(embeds, self.class_embeds) + self.logit_bias

    def guidance_logits(self, embeds: torch.Tensor) -> torch.Tensor:
        """Logits `[B,V]` of embeddings `[B,D]` against the guidance texts; against the classes if there are none."""
        texts = self.class_embeds if self.guidance_embeds is None else self.guidance_embeds
        return self._logits(embeds, texts) + self.logit_bias

    def cosines(self, logits: torch.Tensor) -> torch.Tensor:
        """What logits over classes or guidance texts were made of."""
        return (logits - self.logit_bias) / self.logit_scale

    def caption_logits(self, embeds: torch.Tensor) -> torch.Tensor:
        """Logits `[B,P*B]` of embeddings `[B,D]` against the captions of the batch, those of all P processes.

        Without the bias, which changes no softmax.
        """
        return self._logits(embeds, gather_rows(self.caption_embeds))

    def image_logits(self, embeds: torch.Tensor) -> torch.Tensor:
        """Logits `[B,P*B]` of this process's captions against the images of all P, of embeddings `[B,D]` here."""
        images = F.normalize(gather_rows(at_least_float32(embeds)), dim=-1)
        with torch.autocast(images.device.type, enabled=False):
            return self.logit_scale * self.caption_embeds.to(images.dtype) @ images.T

    def _logits(self, embeds: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        embeds = at_least_float32(embeds)
        with torch.autocast(embeds.device.type, enabled=False):
            return self.logit_scale * F.normalize(embeds, dim=-1) @ texts.to(embeds.dtype).T

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits(self.embed(images))


class Views:
    """What one encoder makes of a batch, computed when first asked for and kept.

    Args:
        classifier (`ZeroShotClassifier`): Student or teacher.
        clean (`torch.Tensor`): Images in [0,1], `[B,3,H,W]`.
        adversarial (`torch.Tensor`, *optional*): Their adversarial counterparts.
    """

    def __init__(self, classifier: ZeroShotClassifier, clean: torch.Tensor, adversarial: torch.Tensor | None = None):
        self.classifier, self.clean, self.adversarial = classifier, clean, adversarial

    @cached_property
    def clean_embeds(self) -> torch.Tensor:
        """Un-normalised projected embeddings of the clean images, `[B,D]`."""
        return self.classifier.embed(self.clean)

    @cached_property
    def adversarial_embeds(self) -> torch.Tensor:
        """Likewise of the adversarial ones."""
        return self.classifier.embed(self.adversarial)

    @cached_property
    def clean_logits(self) -> torch.Tensor:
        """Logits of the clean images over the classes, `[B,K]`, float32."""
        return self.classifier.logits(self.clean_embeds)

    @cached_property
    def adversarial_logits(self) -> torch.Tensor:
        """Likewise of the adversarial ones."""
        return self.classifier.logits(self.adversarial_embeds)

    @cached_property
    def clean_guidance_logits(self) -> torch.Tensor:
        """Logits of the clean images over the guidance texts, `[B,V]`; over the classes if there are none."""
        if self.classifier.guidance_embeds is None:
            return self.clean_logits
        return self.classifier.guidance_logits(self.clean_embeds)

    @cached_property
    def adversarial_guidance_logits(self) -> torch.Tensor:
        """Likewise of the adversarial ones."""
        if self.classifier.guidance_embeds is None:
            return self.adversarial_logits
        return self.classifier.guidance_logits(self.adversarial_embeds)

    @cached_property
    def clean_caption_logits(self) -> torch.Tensor:
        """Logits of the clean images over the captions of the batch, `[B,B]`, float32 (`[B,P*B]` on P processes)."""
        return self.classifier.caption_logits(self.clean_embeds)

    @cached_property
    def adversarial_caption_logits(self) -> torch.Tensor:
        """Likewise of the adversarial ones."""
        return self.classifier.caption_logits(self.adversarial_embeds)

    @cached_property
    def clean_image_logits(self) -> torch.Tensor:
        """Logits of the captions over the clean images of the batch, `[B,B]`, float32; see `caption_logits`."""
        return self.classifier.image_logits(self.clean_embeds)

    @cached_property
    def adversarial_image_logits(self) -> torch.Tensor:
        """Likewise over the adversarial ones."""
        return self.classifier.image_logits(self.adversarial_embeds)

    @cached_property
    def clean_patches(self) -> torch.Tensor:
        """Projected patch tokens of the clean images, `[B,h,w,D]`. One pass gives them and the embeddings, if they are
        asked for first."""
        embeds, patches = self.classifier.embed_with_patches(self.clean)
        self.__dict__.setdefault("clean_embeds", embeds)
        return patches

    @cached_property
    def adversarial_patches(self) -> torch.Tensor:
        """Likewise of the adversarial ones."""
        embeds, patches = self.classifier.embed_with_patches(self.adversarial)
        self.__dict__.setdefault("adversarial_embeds", embeds)
        return patches

    def on(self, adversarial: torch.Tensor) -> Views:
        """The same encoder with adversarial images added; what the clean pass computed is kept."""
        views = type(self)(self.classifier, self.clean, adversarial)
        views.__dict__.update({name: value for name, value in self.computed().items() if name.startswith("clean_")})
        return views

    def computed(self) -> dict[str, torch.Tensor]:
        """The views that were computed so far, by name."""
        return {
            name: value for name, value in self.__dict__.items() if name.endswith(("_embeds", "_logits", "_patches"))
        }
