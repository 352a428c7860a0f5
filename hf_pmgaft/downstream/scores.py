"""What texts about the images of a task are worth, one by one and together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..evaluation.figure import PIXEL_ACCURACY, Figure
from ..evaluation.intervals import wilson_interval
from ..evaluation.outcomes import interval
from .answers import caption_score, contains
from .cider import CiderD, caption_tokens
from .pope import f1_counts, read_yes_no
from .science_qa import read_choice
from .vqa import cut_answer, vqa_accuracy

# Sums over images that are divided by each other, as those of pixels are: the bootstrap over images is the same.
POOLED = Figure(PIXEL_ACCURACY)


class Score(ABC):
    """A score of texts, which the attacker wants low, and the figure of a whole task.

    Attributes:
        figure (`str`): What reports call it.
        title (`str`): What tables call it.
        leaves_below (`float`): An image whose score is below it, or 0, is done: nothing more is tried on it.

    Example:
        >>> score = VqaScore([["two"], ["red"]])
        >>> values = [score.of("2", 0), score.of("blue", 1)]
        >>> values, score.summed(values)
        ([1.0, 0.0], 0.5)
    """

    figure: str
    title: str
    leaves_below: float = 0.0

    @abstractmethod
    def of(self, text: str, place: int) -> float:
        """The score of a text about the image, or in answer to the question, at a place."""

    def is_done(self, score: float) -> bool:
        """Whether a score is so low that nothing more is tried."""
        return score <= 0 or score < self.leaves_below

    def summed(self, scores: Sequence[float]) -> float:
        """The figure of all."""
        return sum(scores) / len(scores)

    def interval(self, scores: Sequence[float]) -> tuple[float, float]:
        """Its 95 % interval: Wilson's of a mean of scores from 0 to 1."""
        return wilson_interval(self.summed(scores), len(scores))

    def counts(self, scores: Sequence[float]) -> list[Sequence[float]] | None:
        """Of a figure that is a ratio of sums over images, what each adds to either sum; else nothing."""
        return None

    def describe(self) -> dict[str, Any]:
        """What of it belongs to a protocol."""
        return {"figure": self.figure, "score": self.title}


class SuccessScore(Score):
    """Whether a target is kept out of a text; the figure is the attacker's success.

    Args:
        target (`str`): What is to be written.
        ignores_case (`bool`): Whether capitals make no difference, as for RobustVLM.

    Example:
        >>> SuccessScore("Money bag", ignores_case=True).of("a money bag", 0)
        0.0
    """

    figure = "success"
    title = "success"

    def __init__(self, target: str, ignores_case: bool = False):
        self.target = target
        self.ignores_case = ignores_case

    def of(self, text: str, place: int) -> float:
        if self.ignores_case:
            return float(not contains(text.lower(), self.target.lower()))
        return float(not contains(text, self.target))

    def summed(self, scores: Sequence[float]) -> float:
        return 1 - super().summed(scores)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "case": "ignored" if self.ignores_case else "kept"}


class ChrfScore(Score):
    """chrF++ of a caption against the best of its references."""

    figure = "chrf"
    title = "chrF++"

    def __init__(self, references: Sequence[Sequence[str]]):
        self.references = references
        caption_score("a", ["a"])  # which says what is not installed

    def of(self, text: str, place: int) -> float:
        return caption_score(text, self.references[place])


class CiderScore(Score):
    """CIDEr-D of a caption, by our own tokenizer, where the evaluated images are the corpus; see [`CiderD`].

    Args:
        references (list of `list[str]`): Of each image that is evaluated.
        leaves_below (`float`): Images below it are done. RobustVLM: 0.1 on COCO, 0.02 on Flickr30k.
    """

    figure = "cider_d"

    def __init__(self, references: Sequence[Sequence[str]], leaves_below: float = 0.0):
        self.leaves_below = leaves_below
        self._cider = CiderD([[caption_tokens(text) for text in of_image] for of_image in references])
        self.title = f"CIDEr-D (own tokenizer, {len(references)} images)"
        self._corpus = f"references of the {len(references)} evaluated images"

    def of(self, text: str, place: int) -> float:
        return self._cider.score(caption_tokens(text), place)

    def interval(self, scores: Sequence[float]) -> tuple[float, float]:
        """Its 95 % interval by the bootstrap over images; how rare n-grams are stays as it is."""
        return interval(POOLED, self.summed(scores), len(scores), [[score, 1] for score in scores])

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "corpus": self._corpus, "left_below": self.leaves_below}


class VqaScore(Score):
    """VQA accuracy of an answer; see [`vqa_accuracy`].

    Args:
        answers (list of `list[str]`): The right ones to each question.
        rule (`str`): When answers are normalised, `"always"` or `"official"`.
        cuts (`bool`): Whether of a text only what [`cut_answer`] leaves is read.
    """

    figure = "vqa_accuracy"
    title = "VQA accuracy"

    def __init__(self, answers: Sequence[Sequence[str]], rule: str = "always", cuts: bool = False):
        self.answers = answers
        self.rule = rule
        self.cuts = cuts

    def of(self, text: str, place: int) -> float:
        return vqa_accuracy(cut_answer(text) if self.cuts else text, self.answers[place], self.rule)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "normalised": self.rule, "cut": self.cuts}


class YesNoScore(Score):
    """Whether a text says yes or no as it should; the figure is F1 of yes, of one category of POPE.

    Args:
        labels (`list[str]`): `"yes"` or `"no"`, the right answer to each question.

    Example:
        >>> score = YesNoScore(["yes", "no", "yes"])
        >>> values = [score.of("Yes", 0), score.of("Yes", 1), score.of("No", 2)]
        >>> values, score.summed(values)
        ([1.0, 0.0, 0.0], 0.5)
    """

    figure = "f1"
    title = "F1"

    def __init__(self, labels: Sequence[str]):
        self.labels = labels

    def of(self, text: str, place: int) -> float:
        return float(read_yes_no(text) == self.labels[place])

    def summed(self, scores: Sequence[float]) -> float:
        counts = self.counts(scores)
        whole = sum(below for _, below in counts)
        return sum(above for above, _ in counts) / whole if whole else 0.0

    def interval(self, scores: Sequence[float]) -> tuple[float, float]:
        """Its 95 % interval by the bootstrap over questions."""
        return interval(POOLED, self.summed(scores), len(scores), self.counts(scores))

    def counts(self, scores: Sequence[float]) -> list[Sequence[float]]:
        wrong = {"yes": "no", "no": "yes"}
        answers = [label if score else wrong[label] for label, score in zip(self.labels, scores, strict=True)]
        return [f1_counts(answer, label) for answer, label in zip(answers, self.labels, strict=True)]


class ChoiceScore(Score):
    """Whether a text names the right choice; see [`read_choice`].

    Args:
        right (`list[int]`), num_choices (`list[int]`): Of each question.
    """

    figure = "accuracy"
    title = "accuracy"

    def __init__(self, right: Sequence[int], num_choices: Sequence[int]):
        self.right = right
        self.num_choices = num_choices

    def of(self, text: str, place: int) -> float:
        return float(read_choice(text, self.num_choices[place]) == self.right[place])
