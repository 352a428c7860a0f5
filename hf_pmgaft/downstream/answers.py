"""Scores of what a vision-language model writes: targets, captions, and answers to questions."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = {"a", "an", "the"}
# Punctuation that the official VQA evaluation turns into spaces.
_SPACES = str.maketrans(dict.fromkeys(set(string.punctuation) - set("'.:$%&#*~^|"), " "))


def contains(text: str, target: str) -> bool:
    """Whether a target stands in a text, whatever the white space.

    Example:
        >>> contains("so, money  bag", "money bag")
        True
    """
    return " ".join(target.split()) in " ".join(text.split())


def caption_score(text: str, references: Sequence[str]) -> float:
    """chrF++ of a caption against the best of its references, from 0 to 1 (Popović, 2017), by `sacrebleu`.

    Raises:
        ImportError: if `sacrebleu` is not installed.

    Example:
        >>> caption_score("a red cat", ["a dog", "a red cat"])
        1.0
    """
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise ImportError("Captions are scored by sacrebleu. Install it with pip install 'hf_pmgaft[vlm]'.") from error
    return CHRF(word_order=2).sentence_score(text, list(references)).score / 100


def vqa_accuracy(text: str, answers: Sequence[str]) -> float:
    """VQA accuracy (Antol et al., 2015, arXiv 1505.00468) of an answer, from 0 to 1.

    It is the mean over the right answers of min(matches among the other ones / 3, 1). A single answer counts as all of
    them.

    Example:
        >>> vqa_accuracy("Two cats.", ["2 cats"]), vqa_accuracy("a dog", ["cat"])
        (1.0, 0.0)
    """
    answer = normalise_answer(text)
    references = [normalise_answer(reference) for reference in answers]
    if len(references) == 1:
        return float(answer == references[0])

    matches = sum(answer == reference for reference in references)
    scores = [min((matches - (answer == reference)) / 3, 1.0) for reference in references]
    return sum(scores) / len(references)


def normalise_answer(text: str) -> str:
    """An answer as the official VQA evaluation compares them: lower case, digits, no articles and no punctuation.

    Its table of contractions is replaced by leaving apostrophes out on both sides.

    Example:
        >>> normalise_answer("A dog, two cats!")
        'dog 2 cats'
    """
    # Commas between digits, apostrophes, and full stops that are no decimal points
    text = re.sub(r"(?<=\d),(?=\d)|'|\.(?!\d)", "", text.lower())
    words = [_DIGITS.get(word, word) for word in text.translate(_SPACES).split()]
    return " ".join(word for word in words if word not in _ARTICLES)
