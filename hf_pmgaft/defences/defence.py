"""`Defence`: a classifier that is defended at test time, and is a classifier itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from ..attacks.inputs import check_seeds
from ..attacks.options import ATTACKERS
from ..registry import check_choice
from ..zero_shot.classifier import ZeroShotClassifier


class Defence:
    """A classifier with a defence before, in or behind it: images in [0,1] -> logits.

    Subclasses say how images become embeddings, or logits where the defence has no embeddings. Their keyword-only
    arguments are the options of a [`DefenceSpec`]; a constructor checks them, and computes nothing.

    Args:
        classifier (`ZeroShotClassifier`): The bare one.

    Attributes:
        title (`str`): What tables call it.
        is_random (`bool`): Whether logits follow from `seeds`, too: `[B]`, int64, one per image and draw.
        has_embeds (`bool`): Whether [`Defence.embed`] is there, or logits alone.
        needs_classes (`bool`): Whether it looks at classes, or ends in one: captions are none, and are not ranked.
        attackers (`tuple`): Those of `ATTACKERS` that differ: without `"straight_through"` where that has the same
            gradient as `"through"`, whatever the image.

    Example:
        >>> class Grey(Defence):
        ...     title = "grey"
        ...
        ...     def embed(self, images, seeds=None, attacker="through"):
        ...         return self.classifier.embed(images.mean(1, keepdim=True).expand_as(images))
        >>> from hf_pmgaft import ZeroShotClassifier, encode_class_names
        >>> class_embeds = encode_class_names(model, processor, class_names)
        >>> defence = Grey(ZeroShotClassifier.from_model(model, processor, class_embeds))
        >>> defence(images[:2]).shape
        torch.Size([2, 4])
    """

    title: ClassVar[str] = ""
    is_random: ClassVar[bool] = False
    has_embeds: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    attackers: ClassVar[tuple[str, ...]] = ATTACKERS

    def __init__(self, classifier: ZeroShotClassifier):
        self.classifier = classifier

    @classmethod
    def of(
        cls,
        classifier: ZeroShotClassifier,
        model: nn.Module | None = None,
        processor: Any = None,
        class_names: Sequence[str] | None = None,
        prompt_templates: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Defence:
        """The defence of an encoder's classifier; subclasses that need texts make them by the encoder."""
        return cls(classifier, **options)

    @classmethod
    def check(cls, model: nn.Module, processor: Any, has_head: bool) -> None:
        """Raises `ValueError` for an encoder, or a head other than class names, that the defence cannot serve."""

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
        raise NotImplementedError(f"{self.title} has logits alone.")

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
        check_choice("attacker", attacker, ATTACKERS)
        return self.classifier if attacker == "unaware" else partial(self, attacker=attacker)

    def check_call(self, images: torch.Tensor, seeds: torch.Tensor | None, attacker: str) -> None:
        """Raises `ValueError` for a backward pass that there is not, and for a random defence without seeds."""
        check_choice("backward pass of a defence", attacker, ATTACKERS[1:])
        if not self.is_random:
            return
        if seeds is None:
            raise ValueError(
                f"You passed no seeds to {self.title}, which draws anew for each image. Pass a whole number per "
                "image, such as draw_seeds(sample_ids, 'verdict')."
            )
        check_seeds(seeds, images)


class PixelDefence(Defence):
    """A defence before the encoder: images -> images, which the bare classifier then takes.

    Its `straight_through` has the identity for the change of the images in the backward pass, so that gradients are
    those of the bare classifier at the changed images.

    Example:
        >>> class Dimmed(PixelDefence):
        ...     def purify(self, images, seeds):
        ...         return images / 2
        >>> point = images[:1].clone().requires_grad_()
        >>> defence = Dimmed(None)
        >>> for attacker in ("through", "straight_through"):
        ...     total = defence.purified(point, None, attacker).sum()
        ...     print(torch.autograd.grad(total, point)[0].unique().item())
        0.5
        1.0
    """

    def purify(self, images: torch.Tensor, seeds: torch.Tensor | None) -> torch.Tensor:
        """What is classified in place of images in [0,1], `[B,3,H,W]`, with the gradient of the whole."""
        raise NotImplementedError

    def purified(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        """What is classified in place of images, with the gradient of that backward pass; see [`Defence.embed`]."""
        self.check_call(images, seeds, attacker)
        if attacker == "through":
            return self.purify(images, seeds)
        with torch.no_grad():
            values = self.purify(images, seeds)
        return straight_through(values, images)

    def embed(
        self, images: torch.Tensor, seeds: torch.Tensor | None = None, attacker: str = "through"
    ) -> torch.Tensor:
        return self.classifier.embed(self.purified(images, seeds, attacker))


def straight_through(values: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Values, to the bit, whose gradient goes to their source as if they were it (BPDA).

    Example:
        >>> source = torch.tensor([0.3], requires_grad=True)
        >>> rounded = straight_through(source.round(), source)
        >>> rounded.item(), torch.autograd.grad(rounded, source)[0].item()
        (0.0, 1.0)
    """
    # Not source + (values - source), which rounds.
    return values.detach() + (source - source.detach())


def check_given(title: str, **needed: Any) -> None:
    """Raises `ValueError` for what a defence with texts of its own was not given.

    Example:
        >>> check_given("CLIPure", model=model, processor=None)
        Traceback (most recent call last):
        ValueError: CLIPure makes texts of its own, and was given no processor. Pass it to `DefenceSpec.wrap`.
    """
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise ValueError(
            f"{title} makes texts of its own, and was given no {' and no '.join(missing)}. Pass it to "
            "`DefenceSpec.wrap`."
        )
