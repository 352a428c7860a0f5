"""How well a LLaVA's answers withstand attacks: texts and scores, clean and at each radius."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..attacks.ball import parse_radius
from ..evaluation.intervals import wilson_interval
from ..evaluation.verdicts import Verdicts
from ..noise import sample_seeds
from ..progress import progress_bar
from .llava import VisionLanguageModel, attack_answers

CLEAN = "clean"
WORST_OF_RADII = "per image the worst of the clean image and all radii so far, of adversarial images rounded to 8 bits"


@dataclass
class AnswerTask:
    """What is asked about each of N images, which answers the attack goes for, and how a text scores.

    Args:
        name (`str`): Of the task in tables.
        figure (`str`): What is reported, such as `"vqa_accuracy"`.
        questions (`list[str]`): N.
        answers (list of `list[str]`): For each image one or more.
        score (`Callable`): From a text and its image's answers to a number from 0 to 1, which the attacker wants low.
        targeted (`bool`): Whether the attack makes the answers likely, instead of unlikely.

    Example:
        >>> from hf_pmgaft.downstream.answers import vqa_accuracy
        >>> task = AnswerTask("colours", "vqa_accuracy", ["which colour?"], [["red"]], vqa_accuracy)
        >>> task.score("red", task.answers[0])
        1.0
    """

    name: str
    figure: str
    questions: list[str]
    answers: list[list[str]]
    score: Callable[[str, Sequence[str]], float]
    targeted: bool = False

    def reported(self, score: float) -> float:
        """A mean score as tables give it: the success of a targeted attack is what is missing to 1."""
        return 1 - score if self.targeted else score


class AnswerEvaluation:
    """Evaluates what a LLaVA writes about images through the tower that it has, clean and attacked at each radius.

    The attack is [`attack_answers`]. Texts that stand in `verdicts` already are not written again.

    Args:
        model (`VisionLanguageModel`): With the tower to be evaluated.
        rows (`list[int]`): Numbers of the N images in their set, from which their noise follows.
        images (`torch.Tensor`): `[N,3,H,W]` in [0,1], of the tower's size.
        name (`str`): Of the tower, under which its texts are filed.
        verdicts (`Verdicts`): Where they are filed.
        eps (`list[str]`): Radii.
        num_steps (`int`), restarts (`int`), momentum (`float`): Options of the attack.
        max_new_tokens (`int`): Length of a text.
        batch_size (`int`): Images at once, which changes no text.
        seed (`int`): Of the attack's noise.

    Example:
        >>> from hf_pmgaft.downstream.answers import vqa_accuracy
        >>> from hf_pmgaft.downstream.llava import load_llava
        >>> from hf_pmgaft.embedded import emoji_folder
        >>> from hf_pmgaft.evaluation.verdicts import Verdicts
        >>> llava, images = load_llava(str(emoji_folder() / "llava")), torch.ones(1, 3, 40, 40)
        >>> task = AnswerTask("group", "vqa_accuracy", ["which group is it?"], [["food"]], vqa_accuracy)
        >>> run = AnswerEvaluation(llava, [0], images, "own", Verdicts(None, {}), ["4/255"], num_steps=2).run(task)
        >>> list(run)
        ['clean', '4/255']
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        rows: Sequence[int],
        images: torch.Tensor,
        name: str,
        verdicts: Verdicts,
        eps: Sequence[str],
        *,
        num_steps: int = 50,
        restarts: int = 1,
        momentum: float = 0.0,
        max_new_tokens: int = 30,
        batch_size: int = 32,
        seed: int = 0,
    ):
        self.model = model
        self.rows = list(rows)
        self.images = images
        self.name = name
        self.verdicts = verdicts
        self.eps = list(eps)
        self.num_steps = num_steps
        self.restarts = restarts
        self.momentum = momentum
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.seed = seed

    def run(self, task: AnswerTask) -> dict[str, Any]:
        """Writes and scores the texts of a task.

        An image whose score is 0 is done: no larger radius has anything to gain.

        Returns:
            `dict`: By `"clean"` and radius, the smallest first: the task's figure with its interval, the worst score
            so far of each image, and the texts.
        """
        places = range(len(self.rows))
        worst_scores = [1.0] * len(places)
        results = {}
        for eps in (None, *sorted(self.eps, key=parse_radius)):
            self.write(task, eps, [place for place in places if worst_scores[place] > 0])

            by_row = self.verdicts.of(self.name, file_key(task, eps))
            texts = [by_row.get(row) for row in self.rows]
            for place, text in enumerate(texts):
                if text is not None:
                    worst_scores[place] = min(worst_scores[place], task.score(text, task.answers[place]))

            figure = task.reported(sum(worst_scores) / len(worst_scores))
            results[CLEAN if eps is None else eps] = {
                task.figure: figure,
                "interval_95": wilson_interval(figure, len(worst_scores)),
                "worst_scores": list(worst_scores),
                "texts": texts,
            }
        return results

    def write(self, task: AnswerTask, eps: str | None, places: Sequence[int]) -> None:
        """Files texts of the images at `places`, clean or attacked at a radius. Those on file are left as they are."""
        key = file_key(task, eps)
        on_file = self.verdicts.of(self.name, key)
        missing = [place for place in places if self.rows[place] not in on_file]
        with progress_bar(f"{self.name}: {key}", len(missing), shown=bool(missing)) as bar:
            for start in range(0, len(missing), self.batch_size):
                batch = missing[start : start + self.batch_size]
                images = self.images[batch] if eps is None else self.attack(task, eps, batch)
                texts = self.model.write(images, [task.questions[place] for place in batch], self.max_new_tokens)
                self.verdicts.add(self.name, key, [self.rows[place] for place in batch], texts)
                bar.update(len(batch))

    def attack(self, task: AnswerTask, eps: str, places: Sequence[int]) -> torch.Tensor:
        """Adversarial images, whose noise follows from the seed and the image's row."""
        rows = torch.tensor([self.rows[place] for place in places], device=self.images.device)
        return attack_answers(
            self.model,
            self.images[list(places)],
            [task.questions[place] for place in places],
            [task.answers[place] for place in places],
            eps=eps,
            targeted=task.targeted,
            seeds=sample_seeds(self.seed, 0, rows),
            num_steps=self.num_steps,
            restarts=self.restarts,
            momentum=self.momentum,
        )

    def examples(self, task: AnswerTask, count: int = 4) -> tuple[torch.Tensor, list[list[str]]]:
        """The first images clean and attacked at the last radius, `[2,N,3,H,W]`, and what is written about them."""
        places = list(range(min(count, len(self.rows))))
        questions = [task.questions[place] for place in places]
        pair = torch.stack([self.images[places], self.attack(task, self.eps[-1], places)])
        return pair.cpu(), [self.model.write(images, questions, self.max_new_tokens) for images in pair]


def file_key(task: AnswerTask, eps: str | None) -> str:
    """How texts of a task are filed, clean or at a radius."""
    return f"{task.name}, {CLEAN if eps is None else f'linf {eps}'}"
