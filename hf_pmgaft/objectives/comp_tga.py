"""Comp-TGA: the attention of TGA-ZSR, less that to a prompt that denies the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..prompts import check_prompt_templates
from ..zero_shot.classifier import ZeroShotClassifier
from .tga_zsr import TGAZSR, ImageTokens


@dataclass
class CompTGA(TGAZSR):
    """Comp-TGA: complementary text-guided attention (Yu et al., arXiv 2603.18598).

    Equation: `CE(l(x'), y) + 0.10 |A_f(x') - A_f0(x)| + 0.07 |A_f(x) - A_f0(x)|` as in TGA-ZSR, with the map `A =
    A_class (1 - A_non)`: attention to the true class where there is none to the prompt that denies it. Each map is
    scaled to [0,1] and resized before the product. The attack maximises the cross-entropy.

    Requirements: labels, patch tokens, the teacher's on clean images, embeddings of the second prompt. Trained: vision
    tower. Authors' settings: TinyImageNet, eps 1/255, 2 steps of 1/255, SGD 1e-4, batch 128, 10 epochs.

    Args:
        adversarial_weight, clean_weight, normalised_over: See [`TGAZSR`].
        non_class_template (`str`): The prompt that denies the class.

    Example:
        >>> CompTGA().non_class_template
        'This is not a photo of a {}'
    """

    adversarial_weight: float = 0.10
    clean_weight: float = 0.07
    non_class_template: str = "This is not a photo of a {}"

    def __post_init__(self):
        check_prompt_templates(self.non_class_template)

    def attention(self, tokens: ImageTokens, classifier: ZeroShotClassifier, labels: torch.Tensor) -> torch.Tensor:
        to_class = super().attention(tokens, classifier, labels)
        to_denial = self.attention_to(tokens, classifier.non_class_embeds[labels])
        return to_class * (1 - to_denial)
