"""Attacks on answers as an evaluation runs them: PGD on all answers at once or on the tower, and the ensemble."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..attacks.ball import parse_radius
from ..noise import sample_seeds
from .answer_pgd import attack_answers
from .answer_walks import AnswerWalks
from .encoder_attack import attack_encoder
from .ensemble import Course, stages
from .tasks import AnswerTask
from .vlm import VisionLanguageModel

# What is filed of a text that was written about an image: the text, or what an ensemble says of it.
Filed = Any


@dataclass
class AskedImages:
    """The images of a task, and a model that is asked about them.

    Args:
        model (`VisionLanguageModel`): With the tower to be evaluated.
        task (`AnswerTask`): Of N questions.
        images (list of `torch.Tensor`): Each `[3,H,W]` in [0,1]; a task says which its questions are about.
        rows (`list[int]`): Numbers of the images in their set, from which their noise follows.
        batch_size (`int`): Images at once.
    """

    model: VisionLanguageModel
    task: AnswerTask
    images: Sequence[torch.Tensor]
    rows: Sequence[int]
    batch_size: int

    def image(self, place: int) -> torch.Tensor:
        """The image that a question is about, `[3,H,W]`."""
        return self.images[self.task.image_places[place]]

    def stack(self, places: Sequence[int]) -> torch.Tensor:
        """The images of several questions, `[B,3,H,W]`, which are of one size."""
        return torch.stack([self.image(place) for place in places])

    def seeds(self, seed: int, places: Sequence[int]) -> torch.Tensor:
        """Of the noise on the images of questions, `[B]`."""
        rows = [self.rows[self.task.image_places[place]] for place in places]
        return sample_seeds(seed, 0, torch.tensor(rows, device=self.image(places[0]).device))

    def write(self, images: torch.Tensor, places: Sequence[int]) -> list[str]:
        """What the model answers to questions about images `[B,3,H,W]`: what it writes, or its likeliest option."""
        questions = [self.task.questions[place] for place in places]
        if self.task.options is None:
            return self.model.write(images, questions, self.task.max_new_tokens)
        judged = self.model.pixels.as_judged(images)
        return likeliest(self.model, judged, questions, [self.task.options[place] for place in places])


@torch.no_grad()
def likeliest(
    model: VisionLanguageModel,
    images: torch.Tensor,
    questions: Sequence[str],
    options: Sequence[Sequence[str]],
) -> list[str]:
    """The option of each question that a model finds likeliest: by the summed log-probability of its tokens."""
    chosen = []
    for image, question, of_question in zip(images, questions, options, strict=True):
        losses = model.answer_loss(
            image.expand(len(of_question), *image.shape),
            [question] * len(of_question),
            list(of_question),
            reduction="sum",
        )
        chosen.append(of_question[int(losses.argmin())])
    return chosen


class AnswerAttack(ABC):
    """An attack on answers, with what it files of each text."""

    @abstractmethod
    def run(
        self, asked: AskedImages, eps: str, lots: Iterable[Sequence[int]], clean: Mapping[int, str]
    ) -> Iterator[tuple[list[int], torch.Tensor, list[Filed]]]:
        """Attacks the images of questions at places that come in lots, of one size.

        Args:
            asked (`AskedImages`): The task.
            eps (`str`): Radius in L-inf.
            clean (`dict[int, str]`): By place, what was written about the clean image.

        Returns:
            `Iterator`: Places, their adversarial images `[B,3,H,W]`, and what is filed of each.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What of it belongs to a protocol."""


@dataclass(frozen=True)
class _OneWalk(AnswerAttack):
    """PGD once for each image of a lot, on a loss that subclasses choose.

    Args:
        num_steps (`int`), restarts (`int`), momentum (`float`): Options of PGD.
        seed (`int`): Of the noise.
    """

    num_steps: int = 50
    restarts: int = 1
    momentum: float = 0.0
    seed: int = 0

    @abstractmethod
    def attack(self, asked: AskedImages, places: Sequence[int], **options: Any) -> torch.Tensor:
        """Adversarial images of places, `[B,3,H,W]`; `options` are those of [`attack_answers`]."""

    def run(
        self, asked: AskedImages, eps: str, lots: Iterable[Sequence[int]], clean: Mapping[int, str]
    ) -> Iterator[tuple[list[int], torch.Tensor, list[Filed]]]:
        for lot in lots:
            places = list(lot)
            images = self.attack(
                asked,
                places,
                eps=eps,
                seeds=asked.seeds(self.seed, places),
                num_steps=self.num_steps,
                restarts=self.restarts,
                momentum=self.momentum,
            )
            yield places, images, asked.write(images, places)


@dataclass(frozen=True)
class PgdAttack(_OneWalk):
    """PGD on the mean loss of all answers of an image; see [`attack_answers`]. Its options are those of PGD."""

    def attack(self, asked: AskedImages, places: Sequence[int], **options: Any) -> torch.Tensor:
        questions = [asked.task.questions[place] for place in places]
        answers = [asked.task.answers[place] for place in places]
        targeted = asked.task.is_targeted
        return attack_answers(asked.model, asked.stack(places), questions, answers, targeted=targeted, **options)

    def describe(self) -> dict[str, Any]:
        loss = "cross-entropy of the answer's tokens under the language model, their mean"
        return {"attack": "pgd", "loss": loss, **_describe_walk(self)}


@dataclass(frozen=True)
class EncoderAttack(_OneWalk):
    """PGD on the vision tower alone, whatever is asked and answered; see [`attack_encoder`]."""

    def attack(self, asked: AskedImages, places: Sequence[int], **options: Any) -> torch.Tensor:
        return attack_encoder(asked.model, asked.stack(places), **options)

    def describe(self) -> dict[str, Any]:
        loss = (
            "squared L2 distance of the tower's tokens that the language model reads from the clean ones, their mean"
        )
        return {"attack": "encoder", "loss": loss, **_describe_walk(self)}


@dataclass(frozen=True)
class EnsembleAttack(AnswerAttack):
    """The ensemble of the Robust CLIP paper: APGD on one answer after the other, until an image's score is low enough.

    See [`stages`] for what is tried, and [`Course`] for what is kept. What is filed of an image has its text, the
    stage that gave it and all that were tried.

    Args:
        num_steps (`int`): Steps of a run. Authors: 100.
        target_steps (`int`): Steps of a run towards a target. Authors: 10,000.
    """

    num_steps: int = 100
    target_steps: int = 10_000

    def run(
        self, asked: AskedImages, eps: str, lots: Iterable[Sequence[int]], clean: Mapping[int, str]
    ) -> Iterator[tuple[list[int], torch.Tensor, list[Filed]]]:
        task = asked.task
        walks = AnswerWalks(
            asked.model,
            task,
            asked.write,
            eps=eps,
            radius=parse_radius(eps),
            num_steps=self.target_steps if task.is_targeted else self.num_steps,
            size=asked.batch_size,
        )

        def course(place: int) -> Course:
            text, score = clean[place], task.score.of(clean[place], place)
            return Course(place, asked.image(place), stages(task, place), task.score.is_done, text, score)

        for done in walks.run([course(place) for place in lot] for lot in lots):
            filed = [{"text": one.text, "by": one.worst_stage, "tried": one.tried} for one in done]
            yield [one.place for one in done], torch.stack([one.worst_image for one in done]), filed

    def describe(self) -> dict[str, Any]:
        return {
            "attack": "ensemble",
            "norm": "linf",
            "loss": "cross-entropy of one answer's tokens and its end under the language model, their mean",
            "runs": "APGD on each of five references, or of the five most frequent answers, then from the worst "
            "image; of answers also towards 'maybe' and 'Word'; an image leaves when its score is low enough",
            "num_steps": self.num_steps,
            "target_steps": self.target_steps,
            "first_step": "the radius",
            "random_start": False,
            "precision": "float32 in all runs, where the authors' first ones are in float16",
        }


def _describe_walk(attack: _OneWalk) -> dict[str, Any]:
    return {
        "norm": "linf",
        "num_steps": attack.num_steps,
        "step_size": f"{2.5 / attack.num_steps:g} of the radius" if attack.num_steps > 1 else "the radius",
        "random_start": True,
        "restarts": attack.restarts,
        "momentum": attack.momentum,
    }


def text_of(filed: Filed) -> str:
    """The text of what was filed.

    Example:
        >>> text_of("a cat"), text_of({"text": "a dog", "by": "reference 0", "tried": ["clean", "reference 0"]})
        ('a cat', 'a dog')
    """
    return filed if isinstance(filed, str) else filed["text"]
