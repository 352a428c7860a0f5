"""The ensemble attack of the Robust CLIP paper: what is tried on an image, and what is kept of it.

Schlarmann, Singh, Croce and Hein (ICML 2024, arXiv 2402.12336); the flow of control is that of their code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from .tasks import CAPTION, TARGET, VQA, AnswerTask
from .vqa import by_frequency

CLEAN = "clean"
MOST_ANSWERS = 5  # of an image that are attacked one by one
WORDS = ("maybe", "Word")  # that answers are pulled to in the end


@dataclass(frozen=True)
class Stage:
    """One run of the attack on an image.

    Args:
        name (`str`): Of it in reports.
        answer (`str`, *optional*): Which answer's loss it follows. Without one it goes on from the worst image so far,
            with the answer that was attacked there.
        is_targeted (`bool`): Whether the answer is made likely.
    """

    name: str
    answer: str | None
    is_targeted: bool = False


LAST = Stage("worst so far", None)


def stages(task: AnswerTask, place: int) -> list[Stage]:
    """What is tried on the image or question at a place, in order.

    Captions: each of the first five references, then once more from the worst image so far. Questions: each of the
    five most frequent answers, once more from the worst, then towards "maybe" and "Word". Targets, choices and yes or
    no: their own answers, one by one.

    Example:
        >>> from hf_pmgaft.downstream.scores import VqaScore
        >>> answers = [["yes", "no", "no"]]
        >>> [stage.name for stage in stages(AnswerTask("vqa", VQA, ["is it?"], answers, VqaScore(answers)), 0)]
        ['answer 0', 'answer 1', 'worst so far', 'towards maybe', 'towards Word']
    """
    answers = task.answers[place]
    if task.kind == CAPTION:
        return [*_one_by_one("reference", answers[:MOST_ANSWERS]), LAST]
    if task.kind == VQA:
        towards = [Stage(f"towards {word}", word, is_targeted=True) for word in WORDS]
        return [*_one_by_one("answer", by_frequency(answers)[:MOST_ANSWERS]), LAST, *towards]
    if task.kind == TARGET:
        return [Stage("towards the target", answers[0], is_targeted=True)]
    return _one_by_one("answer", answers)


def _one_by_one(kind: str, answers: Sequence[str]) -> list[Stage]:
    return [Stage(f"{kind} {number}", answer) for number, answer in enumerate(answers)]


@dataclass(eq=False)
class Course:
    """An image on its way through the stages, and the worst that was met: only a strictly lower score replaces it.

    It leaves when a score is low enough, and it was never attacked if that of the clean image is.

    Args:
        place (`int`): Of the question in its task.
        image (`torch.Tensor`): `[3,H,W]`, clean.
        stages (`list[Stage]`): What may be tried.
        is_done (`Callable`): Whether a score is low enough.
        text (`str`), score (`float`): Of the clean image.

    Attributes:
        worst_image (`torch.Tensor`), worst_stage (`str`), worst_answer (`str`): With the lowest score, which stage
            gave it, and which answer was attacked there; those that images are pulled to do not count.
        tried (`list[str]`): Names of the stages that ran.

    Example:
        >>> tried = [Stage("reference 0", "a cat"), Stage("reference 1", "a dog"), LAST]
        >>> course = Course(0, torch.zeros(3, 2, 2), tried, lambda score: score < 0.1, text="a cat", score=0.9)
        >>> course.note(course.next_stage(), "a bus", 0.3, torch.ones(3, 2, 2))
        >>> course.note(course.next_stage(), "a dog", 0.5, torch.ones(3, 2, 2))
        >>> course.next_stage(), course.answer_of(LAST), course.score, course.worst_stage
        (Stage(name='worst so far', answer=None, is_targeted=False), 'a cat', 0.3, 'reference 0')
    """

    place: int
    image: torch.Tensor
    stages: list[Stage]
    is_done: Callable[[float], bool]
    text: str
    score: float
    worst_image: torch.Tensor = field(init=False)
    worst_stage: str = CLEAN
    worst_answer: str | None = field(init=False)
    tried: list[str] = field(default_factory=lambda: [CLEAN])

    def __post_init__(self) -> None:
        self.worst_image = self.image
        self.worst_answer = self.stages[0].answer if self.stages else None

    def next_stage(self) -> Stage | None:
        """What is to be tried next; nothing if the score is low enough or all was tried."""
        number = len(self.tried) - 1
        if self.is_done(self.score) or number >= len(self.stages):
            return None
        return self.stages[number]

    def start_of(self, stage: Stage) -> torch.Tensor:
        """Where a stage begins, `[3,H,W]`."""
        return self.image if stage.answer is not None else self.worst_image

    def answer_of(self, stage: Stage) -> str:
        """Which answer's loss a stage follows."""
        return self.worst_answer if stage.answer is None else stage.answer

    def note(self, stage: Stage, text: str, score: float, image: torch.Tensor) -> None:
        """What a stage came to."""
        self.tried.append(stage.name)
        if score < self.score:
            if not stage.is_targeted:
                self.worst_answer = self.answer_of(stage)
            self.text = text
            self.score = score
            self.worst_image = image
            self.worst_stage = stage.name
