"""Zero-shot classification and segmentation: names -> text embeddings -> logits of images, or of their pixels."""

from .classifier import ZeroShotClassifier
from .segmenter import Segmenter
from .text import ClassPrompts, encode_class_names, encode_prompts, export_class_embeds
from .views import Views, text_attention

__all__ = [
    "ClassPrompts",
    "Segmenter",
    "Views",
    "ZeroShotClassifier",
    "encode_class_names",
    "encode_prompts",
    "export_class_embeds",
    "text_attention",
]
