"""Gradients of the attacks in bfloat16, while every value that a verdict, a projection or a check sees is float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..attacks.spec import AttackSpec
from ..registry import check_choice
from ..zero_shot.classifier import ZeroShotClassifier

PRECISIONS = ("bf16", "fp32")
# Attacks that take no gradient, which are the same in either precision.
WITHOUT_GRADIENT = ("corruption", "square", "typographic", "universal")

Encoder = Callable[[torch.Tensor], torch.Tensor]


def check_attack_precision(precision: str, attacks: Sequence[AttackSpec]) -> None:
    """Raises `ValueError` for an unknown precision, or one that no attack would take a gradient in.

    Example:
        >>> check_attack_precision("bf16", [AttackSpec.parse("square,eps=4/255")])
        Traceback (most recent call last):
        ValueError: You passed attack_precision='bf16' with attacks that take no gradient (square), where it has no ...
    """
    check_choice("attack_precision", precision, PRECISIONS)
    kinds = sorted({spec.attack for spec in attacks})
    if precision != "fp32" and set(kinds) <= set(WITHOUT_GRADIENT):
        raise ValueError(
            f"You passed attack_precision={precision!r} with attacks that take no gradient ({', '.join(kinds)}), "
            "where it has no effect. Leave it out, or pass an attack that takes one, such as pgd."
        )


def in_attack_precision(classifier: ZeroShotClassifier, precision: str) -> ZeroShotClassifier:
    """The classifier with the gradients of one of `PRECISIONS`; its values are the same to the bit.

    Example:
        >>> from hf_pmgaft import encode_class_names
        >>> texts = encode_class_names(model, processor, class_names)
        >>> exact = ZeroShotClassifier.from_model(model, processor, texts)
        >>> torch.equal(in_attack_precision(exact, "bf16")(images), exact(images))
        True
    """
    if precision == "fp32":
        return classifier
    return classifier.replace(encode_image=Bf16Gradients(classifier.encode_image))


class Bf16Gradients:
    """An image encoder with its embeddings in float32 and, where a gradient is asked for, its Jacobian in bfloat16.

    A pass with a gradient then is two: one under autocast with a graph, for the gradient, and one in float32 without,
    for the embeddings. What follows the encoder, logits and losses, is float32 in both directions.

    Args:
        encode_image (`Callable`): Normalised pixel values `[B,3,H,W]` -> embeddings `[B,D]`, in float32.

    Example:
        >>> encode_image = Bf16Gradients(lambda pixel_values: torch.relu(pixel_values.flatten(1)))
        >>> encode_image(torch.ones(2, 3, 16, 16)).shape
        torch.Size([2, 768])
    """

    def __init__(self, encode_image: Encoder):
        self.encode_image = encode_image

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and pixel_values.requires_grad):
            return self.encode_image(pixel_values)

        with torch.no_grad():
            embeds = self.encode_image(pixel_values)
        with torch.autocast(pixel_values.device.type, dtype=torch.bfloat16):
            coarse = self.encode_image(pixel_values)
        return _GradientOf.apply(coarse, embeds)


class _GradientOf(torch.autograd.Function):
    """The value of the second tensor with the gradient of the first.

    A sum of both and a difference would be NaN where they are infinite, and off by a rounding elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, coarse: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        ctx.dtype = coarse.dtype
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient.to(ctx.dtype), None
