"""The base of every objective: typed options, weights, an inner loss, and named outer terms."""

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

    A subclass is a dataclass whose fields are its options. `weights` names every term of `loss`.

    Attributes:
        uses_attack (`bool`): Whether it looks at adversarial images; if not, none are made. A property where an
            option decides.
        uses_captions (`bool`): Whether it pairs images with captions, which it then finds in
            `student.classifier.caption_embeds`.
        uses_patches (`bool`): Whether it looks at patch tokens.
        uses_text (`bool`): Whether it needs class texts; one of image features alone does not.

    Example:
        >>> import torch.nn.functional as F
        >>> @dataclass
        ... class HalfClean(Objective):
        ...     clean: float = 0.5
        ...
        ...     @property
        ...     def weights(self):
        ...         return {"adversarial_ce": 1 - self.clean, "clean_ce": self.clean}
        ...
        ...     def loss(self, student, teacher, labels):
        ...         return {
        ...             "adversarial_ce": F.cross_entropy(student.adversarial_logits, labels),
        ...             "clean_ce": F.cross_entropy(student.clean_logits, labels),
        ...         }
        >>> objective = HalfClean(clean=0.25)
        >>> objective.weights, objective.uses_attack, objective.steers_attack
        ({'adversarial_ce': 0.75, 'clean_ce': 0.25}, True, False)
    """

    uses_attack: ClassVar[bool] = True
    uses_captions: ClassVar[bool] = False
    uses_patches: ClassVar[bool] = False
    uses_text: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "attacks" in vars(cls):
            raise TypeError(
                f"{cls.__name__} sets `attacks`, which nothing reads: whether adversarial images are made is called "
                "`uses_attack`. Rename it."
            )

    @property
    def steers_attack(self) -> bool:
        """Whether the attack maximises a loss of the objective's own."""
        return type(self).attack_loss is not Objective.attack_loss

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term of `loss`, by its name."""
        raise NotImplementedError

    @property
    def sums(self) -> frozenset[str]:
        """Names of the terms that are sums over the batch; all others are means.

        The losses of processes and of accumulated batches are averaged, which leaves a mean what it is. A step
        multiplies a sum by their number first, so that it is the sum over all of them.
        """
        return frozenset()

    @property
    def logit_scale(self) -> float | None:
        """The factor of cosines in training and attack; `None` is the model's own scale."""
        return None

    @property
    def non_class_template(self) -> str | None:
        """A prompt that denies the class, whose embeddings `student.classifier.non_class_embeds` then holds."""
        return None

    def parameters(self) -> dict[str, torch.Tensor]:
        """Start values, each of one dimension, of what the objective itself learns.

        They live in `student.classifier.learned` under the same names.
        """
        return {}

    def attack_loss(
        self, student: ZeroShotClassifier, teacher: Views, labels: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The loss that the attack maximises: images in [0,1] `[B,3,H,W]` -> `[B]`.

        `None` leaves the attack its own loss on the student's logits (cross-entropy unless chosen otherwise).
        """
        return None

    def loss(self, student: Views, teacher: Views, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The unweighted terms of a process's batch, by name, each a scalar: means over it, or sums (see `sums`).

        Minimised is the sum of weight times term.
        """
        raise NotImplementedError
