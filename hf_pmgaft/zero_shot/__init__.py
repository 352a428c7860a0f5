"""Zero-shot classification: class names -> text embeddings -> logits of images, and the views of a batch."""

from .classifier import ZeroShotClassifier
from .text import ClassPrompts, encode_class_names, encode_prompts, export_class_embeds
from .views import Views, text_attention

__all__ = [
    "ClassPrompts",
    "Views",
    "ZeroShotClassifier",
    "encode_class_names",
    "encode_prompts",
    "export_class_embeds",
    "text_attention",
]
