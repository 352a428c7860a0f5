"""An attack on what a vision-language model writes: PGD through its language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..attacks.inputs import check_images
from ..attacks.pgd import pgd
from ..attacks.spec import AttackSpec
from .vlm import VisionLanguageModel


def attack_answers(
    model: VisionLanguageModel,
    images: torch.Tensor,
    questions: Sequence[str],
    answers: Sequence[Sequence[str]],
    *,
    eps: float | str,
    targeted: bool = False,
    num_steps: int = 100,
    seeds: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """Perturbs images until a model finds the answers unlikely or, `targeted`, likely; as 8-bit files hold them.

    It is [`pgd`] in L-inf, whose loss is the cross-entropy of the answers under the language model: targeted as in
    Schlarmann and Hein (2023, arXiv 2308.10741), untargeted on captions and answers as in FARE (arXiv 2402.12336).

    Args:
        model (`VisionLanguageModel`): Left as it was.
        images (`torch.Tensor`): `[B,3,H,W]` in [0,1], as the model takes them.
        questions (`list[str]`): B.
        answers (list of `list[str]`): For each image one or more; their losses are averaged.
        eps (`float` or `str`): Radius.
        seeds (`torch.Tensor`, *optional*): `[B]`, int64, from which all randomness of an image follows.
        options: `step_size`, `random_start`, `restarts`, `momentum` of [`pgd`].

    Returns:
        `torch.Tensor`: `[B,3,H,W]`, detached, inside the ball.

    Raises:
        ValueError: if there are no images, or their size, number or radius does not fit.
        RuntimeError: if an image leaves the ball.

    Example:
        >>> from hf_pmgaft.downstream.vlm import load_vlm
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> llava = load_vlm(str(emoji_folder() / "llava"))
        >>> images = torch.ones(1, 3, 40, 40)
        >>> attacked = attack_answers(llava, images, ["what is it called?"], [["cat"]], eps="4/255", num_steps=2)
        >>> bool((attacked - images).abs().max() <= 4.01 / 255)
        True
    """
    check_attacked_images(model, images)
    _check_questions(images, questions, answers)

    # An image with several answers is asked several times.
    owner = torch.tensor([i for i, of_image in enumerate(answers) for _ in of_image], device=images.device)
    asked = [questions[i] for i in owner.tolist()]
    listed = [answer for of_image in answers for answer in of_image]
    counts = torch.tensor([len(of_image) for of_image in answers], device=images.device)

    def loss(points: torch.Tensor) -> torch.Tensor:
        losses = model.answer_loss(points[owner], asked, listed)
        mean = torch.zeros(len(points), device=points.device).index_add(0, owner, losses) / counts
        return -mean if targeted else mean

    adversarial = pgd(model.model, images, None, eps=eps, num_steps=num_steps, loss_fn=loss, seeds=seeds, **options)

    return as_8_bit_files(images, adversarial, eps)


def as_8_bit_files(images: torch.Tensor, adversarial: torch.Tensor, eps: float | str) -> torch.Tensor:
    """Adversarial images `[B,3,H,W]` as 8-bit files hold them, by the grey levels inside the L-inf ball.

    Raises:
        RuntimeError: if an image leaves its ball.
    """
    threat = AttackSpec("pgd", {"eps": eps, "norm": "linf"})
    rounded = threat.round_to_8_bits(images, adversarial)
    if not threat.allows(images, rounded).all():
        raise RuntimeError("An adversarial image left its ball or [0,1]; images must have the grey levels of 8 bits.")
    return rounded


def check_attacked_images(model: VisionLanguageModel, images: torch.Tensor) -> None:
    """Raises `ValueError` for what is no batch of images in [0,1] that a model takes."""
    if not len(images):
        raise ValueError("You passed no images, so there is nothing to attack. Pass at least one.")
    if not isinstance(images, torch.Tensor):
        sizes = sorted({tuple(image.shape[-2:]) for image in images})
        raise ValueError(
            f"You passed a list of images of {len(sizes)} sizes, {sizes}; a batch has images of one. Stack those of "
            "each size, and attack them apart."
        )
    model.pixels.check_size(images)
    check_images(images)


def _check_questions(images: torch.Tensor, questions: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
    if not len(images) == len(questions) == len(answers) or not all(answers):
        raise ValueError(
            f"You passed {len(questions)} questions and {len(answers)} lists of answers for {len(images)} images. "
            "Pass a question and at least one answer for each."
        )
