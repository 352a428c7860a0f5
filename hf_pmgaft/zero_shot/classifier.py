"""The zero-shot head: images in [0,1] -> logits against class names, guidance names or captions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..distributed import gather_rows
from ..models.backbones import get_encoder, unwrap_peft
from ..models.processors import pixel_statistics
from ..modes import at_least_float32


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

    Attributes:
        non_class_embeds (`torch.Tensor`, *optional*): `[K,D]`, of prompts that deny the class (Comp-TGA).
        caption_embeds (`torch.Tensor`, *optional*): `[B,D]`, of the batch's captions.
        learned (`dict[str, torch.Tensor]`): Parameters that the objective itself learns, by name.
        encode_patches (`Callable`, *optional*): Pixel values -> embeddings `[B,D]` and patch tokens `[B,h,w,D]`.

    Example:
        >>> from hf_pmgaft import encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names, "a photo of the {}")
        >>> classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
        >>> bool((classifier(images).argmax(dim=1) == labels).all())
        True
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
        backbone = get_encoder(model)
        plain = unwrap_peft(model)
        if encode_image is None:
            encode_image = partial(backbone.image_embeds, model)
        if logit_scale is None:
            logit_scale = backbone.logit_scale(plain).item()

        mean, std = pixel_statistics(processor)
        return cls(
            encode_image,
            class_embeds,
            logit_scale,
            image_mean=mean,
            image_std=std,
            image_size=backbone.image_size(plain),
            guidance_embeds=guidance_embeds,
            logit_bias=backbone.logit_bias(plain).item(),
        )

    def by(
        self,
        encode_image: Callable[[torch.Tensor], torch.Tensor],
        encode_patches: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> ZeroShotClassifier:
        """The same classifier on another image encoder, and one that gives embeddings and patch tokens."""
        return self.replace(encode_image=encode_image, encode_patches=encode_patches)

    def replace(self, **values: Any) -> ZeroShotClassifier:
        """A copy with other attributes, such as `class_embeds` that are encoded anew in each step."""
        other = copy.copy(self)
        vars(other).update(values)
        return other

    def detached(self) -> ZeroShotClassifier:
        """The same classifier with its texts, and what its objective learned, as constants."""
        constants = {name: value.detach() for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        learned = {name: value.detach() for name, value in self.learned.items()}
        return self.replace(**constants, learned=learned)

    @property
    def device(self) -> torch.device:
        """The device on which images are taken."""
        return self.class_embeds.device

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Un-normalised projected embeddings `[B,D]` of images in [0,1] `[B,3,H,W]`."""
        return self.encode_image(self.pixel_values(images))

    def embed_with_patches(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings `[B,D]` and patch tokens `[B,h,w,D]`, projected and un-normalised, by one pass."""
        return self.encode_patches(self.pixel_values(images))

    def pixel_values(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0,1] as the encoder takes them: of the model's size, normalised."""
        images = self.at_model_size(images)
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)

    def at_model_size(self, images: torch.Tensor) -> torch.Tensor:
        """Images `[B,3,H,W]`, normalised or not, of the size that the model takes; as they are if they have it."""
        if self.image_size is None or images.shape[-2:] == (self.image_size, self.image_size):
            return images
        size = (self.image_size, self.image_size)
        return F.interpolate(images, size=size, mode="bicubic", align_corners=False)

    def logits(self, embeds: torch.Tensor) -> torch.Tensor:
        """Logits `[B,K]` of embeddings `[B,D]` against the classes."""
        return self._logits(embeds, self.class_embeds) + self.logit_bias

    def guidance_logits(self, embeds: torch.Tensor) -> torch.Tensor:
        """Logits `[B,V]` of embeddings `[B,D]` against the guidance texts; against the classes if there are none."""
        texts = self.class_embeds if self.guidance_embeds is None else self.guidance_embeds
        return self._logits(embeds, texts) + self.logit_bias

    def cosines(self, logits: torch.Tensor) -> torch.Tensor:
        """The cosines that logits over classes or guidance texts were made of."""
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
