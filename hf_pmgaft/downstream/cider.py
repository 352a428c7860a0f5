"""CIDEr-D of captions (Vedantam et al., CVPR 2015, arXiv 1411.5726), by a tokenizer of our own."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

LONGEST = 4  # n-grams
SIGMA = 6.0  # of the penalty on another length
SCALE = 10.0

# What is one word: abbreviations, titles, numbers, words with marks inside, and signs
_WORD = re.compile(
    r"(?:[a-z]\.){2,}|(?:mr|mrs|ms|dr|vs|ave)\.(?= )|\d+(?:[.,:]\d+)+|\w+(?:[-/.@&]\w+)*(?:'\w+)*'?|[^\w\s]"
)
_ENDING = re.compile(r"(?<=[a-z])(n't)$|(?<=\w)('s|'re|'ve|'ll|'d|'m)$")
_KEPT = re.compile(r"\w|[&#$%*=]")  # signs that are no punctuation

Grams = tuple[Counter, ...]  # by n, how often a caption has each n-gram


def caption_tokens(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation, much as the Penn Treebank tokenizer splits them.

    CIDEr's reference scorer splits by a Java program. This rule gives the same on plain captions, and differs on
    brackets, several marks in a row, slang and emoji.

    Example:
        >>> caption_tokens("The woman's red umbrella isn't open.")
        ['the', 'woman', "'s", 'red', 'umbrella', 'is', "n't", 'open']
    """
    tokens = []
    for word in _WORD.findall(caption.lower()):
        ending = _ENDING.search(word)
        if word == "cannot":
            tokens += ["can", "not"]
        elif ending:
            tokens += [word[: ending.start()], ending[0]]
        else:
            tokens.append(word.removesuffix("'"))
    return [token for token in tokens if _KEPT.search(token)]


class CiderD:
    """CIDEr-D of captions, given all references of the set that is evaluated.

    An n-gram counts the less, the more images have it in one of their references. So the score of a caption depends
    on the whole set: of a single image it is 0. It does not depend on the other images' captions.

    Args:
        references (list of list of list of `str`): For each image of the set one or more references, as tokens.

    Raises:
        ValueError: if an image has no reference.

    Example:
        >>> references = [["a red cat", "the red cat"], ["a blue bus"], ["two dogs"]]
        >>> cider = CiderD([[caption_tokens(text) for text in of_image] for of_image in references])
        >>> round(cider.score(caption_tokens("a red cat"), 0), 3), cider.score(caption_tokens("two dogs"), 1)
        (5.363, 0.0)
    """

    def __init__(self, references: Sequence[Sequence[Sequence[str]]]):
        empty = [place for place, of_image in enumerate(references) if not of_image]
        if empty:
            raise ValueError(
                f"You passed no reference for {len(empty)} of {len(references)} images, such as image {empty[0]}, so "
                "there is nothing to hold a caption against. Pass one or more for each, or leave these images out."
            )
        grams = [[count_grams(tokens) for tokens in of_image] for of_image in references]

        # In how many images' references each n-gram is
        images_with: Counter[tuple[str, ...]] = Counter()
        for of_image in grams:
            images_with.update({gram for of_caption in of_image for of_length in of_caption for gram in of_length})
        self._images_with = images_with
        self._log_images = math.log(len(references)) if references else 0.0

        self._references = [
            [(self._weigh(of_caption), len(tokens)) for of_caption, tokens in zip(counted, of_image, strict=True)]
            for counted, of_image in zip(grams, references, strict=True)
        ]

    def score(self, tokens: Sequence[str], place: int) -> float:
        """CIDEr-D of a caption of the image at a place, from 0 to 10; papers give it times 100."""
        weights = self._weigh(count_grams(tokens))
        similarities = [
            math.exp(-((len(tokens) - length) ** 2) / (2 * SIGMA**2)) * _similarity(weights, reference)
            for reference, length in self._references[place]
        ]
        return SCALE * sum(similarities) / len(similarities)

    def _weigh(self, grams: Grams) -> list[dict[tuple[str, ...], float]]:
        """Counts times how rare an n-gram is."""
        return [{gram: count * self._rarity(gram) for gram, count in of_length.items()} for of_length in grams]

    def _rarity(self, gram: tuple[str, ...]) -> float:
        return self._log_images - math.log(max(1, self._images_with[gram]))


def count_grams(tokens: Sequence[str]) -> Grams:
    """How often a caption has each n-gram, for n from 1 to 4.

    Example:
        >>> count_grams(["a", "cat", "a"])[0]
        Counter({('a',): 2, ('cat',): 1})
    """
    starts = [range(len(tokens) - n + 1) for n in range(1, LONGEST + 1)]
    return tuple(
        Counter(tuple(tokens[start : start + n]) for start in of_length) for n, of_length in enumerate(starts, 1)
    )


def _similarity(caption: Sequence[dict], reference: Sequence[dict]) -> float:
    """The cosine of two captions' weights, mean over n; what the caption repeats counts as often as the reference."""
    total = 0.0
    for ours, theirs in zip(caption, reference, strict=True):
        length = _norm(ours) * _norm(theirs)
        if length:
            total += (
                sum(min(weight, theirs[gram]) * theirs[gram] for gram, weight in ours.items() if gram in theirs)
                / length
            )
    return total / LONGEST


def _norm(weights: dict) -> float:
    return math.sqrt(sum(weight * weight for weight in weights.values()))
