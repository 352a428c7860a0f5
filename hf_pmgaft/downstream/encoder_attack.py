"""An attack on the vision tower of a vision-language model alone: what the language model reads becomes another."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ..attacks.pgd import pgd
from ..registry import check_choice
from .answer_pgd import as_8_bit_files, check_attacked_images
from .vlm import VisionLanguageModel

DISTANCES = ("cosine", "l2")


def attack_encoder(
    model: VisionLanguageModel,
    images: torch.Tensor,
    *,
    eps: float | str,
    distance: str = "l2",
    num_steps: int = 100,
    seeds: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """Pushes the tokens of a model's tower away from those of the clean images; as 8-bit files hold them.

    It is [`pgd`] in L-inf on the tokens that the language model reads, which runs in no step: a cheap attack that
    needs no question and no answer, and images of which may be shown to other models. For an embedding in place of
    the tokens it is the inner maximisation of FARE (arXiv 2402.12336).

    Args:
        model (`VisionLanguageModel`): Left as it was.
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1], as the model takes them.
        eps (`float` or `str`): Radius.
        distance (`str`): `"l2"`, the squared distance of a token, or `"cosine"`, one minus its cosine; their mean.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64, from which all randomness of an image follows.
        options: `step_size`, `restarts`, `momentum` of [`pgd`]. The start is random.

    Returns:
        `torch.Tensor`: `[B,3,H,W]`, detached, inside the ball.

    Raises:
        ValueError: if there are no images, their size, range or the radius does not fit, the distance is another, or
            the start is not random.
        RuntimeError: if an image leaves the ball.

    Example:
        >>> from hf_pmgaft.downstream.vlm import load_vlm
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> llava, images = load_vlm(str(emoji_folder() / "llava")), torch.ones(1, 3, 40, 40)
        >>> attacked = attack_encoder(llava, images, eps="4/255", num_steps=2)
        >>> bool((attacked - images).abs().max() <= 4.01 / 255)
        True
    """
    check_choice("distance", distance, DISTANCES)
    if not options.get("random_start", True):
        raise ValueError(
            "You passed random_start=False, but nothing pulls a clean image away from its own tokens, so that it "
            "would stay where it is. Leave it out."
        )
    check_attacked_images(model, images)
    with torch.no_grad():
        clean = model.features(images)

    def loss(points: torch.Tensor) -> torch.Tensor:
        features = model.features(points)
        if distance == "cosine":
            return (1 - F.cosine_similarity(features, clean, dim=-1)).mean(1)
        return (features - clean).square().sum(-1).mean(1)

    adversarial = pgd(model.model, images, None, eps=eps, num_steps=num_steps, loss_fn=loss, seeds=seeds, **options)
    return as_8_bit_files(images, adversarial, eps)
