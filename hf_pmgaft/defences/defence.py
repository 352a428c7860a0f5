"""`Defence`: a classifier that is defended at test time, and is a classifier itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..zero_shot.classifier import ZeroShotClassifier


class Defence:
    """A classifier with a defence before, in or behind it: images in [0,1] -> logits.

    Subclasses say how images become embeddings, or logits where the defence has none.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.

    Attributes:
        is_random (`bool`): Whether logits follow from `seeds`, too: `[B]`, int64, one per image and draw.
    """

    is_random = False

    def __init__(self, classifier: ZeroShotClassifier):
        self.classifier = classifier

    @property
    def device(self) -> torch.device:
        """The device on which images are taken."""
        return self.classifier.device

    def embed(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        """Defended embeddings `[B,D]` of images in [0,1] `[B,3,H,W]`, un-normalised.

        Args:
            seeds (`torch.Tensor`, *optional*): `[B]`, int64, of a random defence.
            attacker (`str`): Whose backward pass it is: `"through"` or `"straight_through"`. Values are the same.
        """
        raise NotImplementedError

    def logits(self, embeds: torch.Tensor) -> torch.Tensor:
        """Logits `[B,K]` of embeddings `[B,D]` against the classes."""
        return self.classifier.logits(embeds)

    def __call__(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        """Defended logits `[B,K]`; arguments as of [`Defence.embed`]."""
        return self.logits(self.embed(images, seeds, attacker))

    def seen_by(self, attacker: str) -> Callable[..., torch.Tensor]:
        """What one of `ATTACKERS` attacks: the bare classifier, or the defence with that backward pass."""
        return self.classifier if attacker == "unaware" else partial(self, attacker=attacker)
