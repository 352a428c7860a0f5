"""What every objective has: typed options, weights, an inner loss, and named outer terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..zero_shot.classifier import ZeroShotClassifier
from ..zero_shot.views import Views


@dataclass
class Objective:
    """A published training objective: which loss terms, and which inner maximisation.

    A subclass is a dataclass whose fields are its options. `weights` names every term of `loss`. One that never looks
    at adversarial images sets `attacks = False` (a property where an option decides), and none are made; one that
    pairs images with captions sets `uses_captions = True`, and finds them in `student.classifier.caption_embeds`. One
    of image features alone sets `uses_text = False`, one that looks at patch tokens `uses_patches = True`.
    """

    attacks: ClassVar[bool] = True
    uses_captions: ClassVar[bool] = False
    uses_patches: ClassVar[bool] = False
    uses_text: ClassVar[bool] = True

    @property
    def steers_attack(self) -> bool:
        """Whether the attack maximises a loss of the objective's own."""
        return type(self).attack_loss is not Objective.attack_loss

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term of `loss`, by its name."""
        raise NotImplementedError

    @property
    def logit_scale(self) -> float | None:
        """What cosines are multiplied by in training and attack; `None` is the model's own scale."""
        return None

    @property
    def non_class_template(self) -> str | None:
        """A prompt that denies the class, whose embeddings `student.classifier.non_class_embeds` then holds."""
        return None

    def parameters(self) -> dict[str, torch.Tensor]:
        """Start values, each of one dimension, of what the objective itself learns; they live in
        `student.classifier.learned` under the same names."""
        return {}

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The loss that the attack maximises: images in [0,1] `[B,3,H,W]` -> `[B]`.

        `None` leaves the attack its own loss on the student's logits (cross-entropy unless chosen otherwise).
        """
        return None

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The unweighted terms, by name, each a scalar. Minimised is the sum of weight times term."""
        raise NotImplementedError
