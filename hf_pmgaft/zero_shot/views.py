"""`Views` of a batch by one encoder, computed when first asked for, and maps of where an image looks like a text."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F

from ..modes import at_least_float32
from .classifier import ZeroShotClassifier


class Views:
    """Embeddings, logits and patch tokens of a batch by one encoder, computed when first asked for and kept.

    Args:
        classifier (`ZeroShotClassifier`): Student or teacher.
        clean (`torch.Tensor`): Images in [0,1], `[B,3,H,W]`.
        adversarial (`torch.Tensor`, *optional*): Their adversarial counterparts.

    Example:
        >>> from hf_pmgaft import encode_class_names
        >>> embeds = encode_class_names(model, processor, class_names)
        >>> views = Views(ZeroShotClassifier.from_model(model, processor, embeds), images)
        >>> views.clean_logits.shape
        torch.Size([16, 4])
        >>> sorted(views.computed())  # and nothing else
        ['clean_embeds', 'clean_logits']
    """

    def __init__(self, classifier: ZeroShotClassifier, clean: torch.Tensor, adversarial: torch.Tensor | None = None):
        self.classifier = classifier
        self.clean = clean
        self.adversarial = adversarial

    @cached_property
    def clean_embeds(self) -> torch.Tensor:
        """Un-normalised projected embeddings of the clean images, `[B,D]`."""
        return self.classifier.embed(self.clean)

    @cached_property
    def adversarial_embeds(self) -> torch.Tensor:
        """Un-normalised projected embeddings of the adversarial images, `[B,D]`."""
        return self.classifier.embed(self.adversarial)

    @cached_property
    def clean_logits(self) -> torch.Tensor:
        """Logits of the clean images over the classes, `[B,K]`, float32."""
        return self.classifier.logits(self.clean_embeds)

    @cached_property
    def adversarial_logits(self) -> torch.Tensor:
        """Logits of the adversarial images over the classes, `[B,K]`, float32."""
        return self.classifier.logits(self.adversarial_embeds)

    @cached_property
    def clean_guidance_logits(self) -> torch.Tensor:
        """Logits of the clean images over the guidance texts, `[B,V]`; over the classes if there are none."""
        if self.classifier.guidance_embeds is None:
            return self.clean_logits
        return self.classifier.guidance_logits(self.clean_embeds)

    @cached_property
    def adversarial_guidance_logits(self) -> torch.Tensor:
        """Logits of the adversarial images over the guidance texts, `[B,V]`; over the classes if there are none."""
        if self.classifier.guidance_embeds is None:
            return self.adversarial_logits
        return self.classifier.guidance_logits(self.adversarial_embeds)

    @cached_property
    def clean_caption_logits(self) -> torch.Tensor:
        """Logits of the clean images over the captions of the batch, `[B,B]`, float32 (`[B,P*B]` on P processes)."""
        return self.classifier.caption_logits(self.clean_embeds)

    @cached_property
    def adversarial_caption_logits(self) -> torch.Tensor:
        """Logits of the adversarial images over the captions of the batch, as of the clean ones."""
        return self.classifier.caption_logits(self.adversarial_embeds)

    @cached_property
    def clean_image_logits(self) -> torch.Tensor:
        """Logits of the captions over the clean images of the batch, `[B,B]`, float32; see `caption_logits`."""
        return self.classifier.image_logits(self.clean_embeds)

    @cached_property
    def adversarial_image_logits(self) -> torch.Tensor:
        """Logits of the captions over the adversarial images of the batch, as over the clean ones."""
        return self.classifier.image_logits(self.adversarial_embeds)

    @cached_property
    def clean_patches(self) -> torch.Tensor:
        """Projected patch tokens of the clean images, `[B,h,w,D]`.

        One pass gives them and the embeddings, if they are asked for first.
        """
        embeds, patches = self.classifier.embed_with_patches(self.clean)
        self.__dict__.setdefault("clean_embeds", embeds)
        return patches

    @cached_property
    def adversarial_patches(self) -> torch.Tensor:
        """Projected patch tokens of the adversarial images, `[B,h,w,D]`; ask for them before the embeddings."""
        embeds, patches = self.classifier.embed_with_patches(self.adversarial)
        self.__dict__.setdefault("adversarial_embeds", embeds)
        return patches

    def on(self, adversarial: torch.Tensor) -> Views:
        """The same encoder with adversarial images too; what the clean pass computed is kept."""
        views = type(self)(self.classifier, self.clean, adversarial)
        clean = {name: value for name, value in self.computed().items() if name.startswith("clean_")}
        views.__dict__.update(clean)
        return views

    def computed(self) -> dict[str, torch.Tensor]:
        """The views that were computed so far, by name."""
        kinds = ("_embeds", "_logits", "_patches")
        return {name: value for name, value in self.__dict__.items() if name.endswith(kinds)}


def text_attention(patch_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
    """Maps where an image looks like a text: text-guided attention (TGA-ZSR, arXiv 2410.21802).

    Equation: `A_ij = cos(z_ij, t)`, where `z_ij` is the patch token at row i and column j of the grid in the space of
    image and text embeddings, and `t` the text. Differentiable; the paper scales each map to its range and resizes it
    to the image before maps are compared.

    Args:
        patch_embeds (`torch.Tensor`): `[B,h,w,D]`, of a [`Backbone`]'s `image_and_patch_embeds`.
        text_embeds (`torch.Tensor`): `[B,D]`, one text per image, such as that of its class.

    Returns:
        `torch.Tensor`: `[B,h,w]`, cosines in [-1,1], neither scaled nor resized; float32, or float64 as passed.

    Example:
        >>> from hf_pmgaft import encode_class_names
        >>> from hf_pmgaft.models import get_backbone
        >>> _, patches = get_backbone(model).image_and_patch_embeds(model, images)
        >>> text_attention(patches, encode_class_names(model, processor, class_names)[labels]).shape
        torch.Size([16, 4, 4])
    """
    # Normalised over the channels of each token, as in the paper; in fp32 whatever autocast made of the embeddings.
    patches = at_least_float32(patch_embeds)
    with torch.autocast(patches.device.type, enabled=False):
        texts = F.normalize(text_embeds.to(patches.dtype), dim=-1)
        return torch.einsum("bhwd,bd->bhw", F.normalize(patches, dim=-1), texts)
