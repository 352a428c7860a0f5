"""POPE: is something in the image? Questions, and how answers score (Li et al., EMNLP 2023, arXiv 2305.10355)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..registry import check_choice, check_count

YES, NO = "yes", "no"
# Which absent objects are asked for: any, the most frequent of the set, those that are most often beside what is there
SAMPLINGS = ("random", "popular", "adversarial")


def read_yes_no(text: str) -> str:
    """Whether a text says yes or no, by the benchmark's rule: what does not say no says yes, an empty text too.

    It says no if the words up to the first full stop have "No", "no" or "not" among them.

    Example:
        >>> [read_yes_no(text) for text in ("No, there is no dog.", "There is a dog.", "NO", "")]
        ['no', 'yes', 'yes', 'yes']
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return NO if {"No", "no", "not"} & set(words) else YES


def is_there(name: str) -> str:
    """The question whether an object is in an image.

    Example:
        >>> is_there("apple")
        'Is there an apple in the image?'
    """
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"Is there {article} {name} in the image?"


def f1_counts(answer: str, label: str) -> tuple[int, int]:
    """What an answer adds to numerator and denominator of F1 = 2 TP / (2 TP + FP + FN), where yes is positive.

    Example:
        >>> f1_counts("yes", "yes"), f1_counts("no", "yes"), f1_counts("no", "no")
        ((2, 2), (0, 1), (0, 0))
    """
    if answer == label:
        return (2, 2) if label == YES else (0, 0)
    return (0, 1)


def f1_score(answers: Sequence[str], labels: Sequence[str]) -> float:
    """F1 of yes; 0 if neither answers nor labels have one.

    Example:
        >>> f1_score(["yes", "yes", "no", "no"], ["yes", "no", "yes", "no"])
        0.5
    """
    counts = [f1_counts(answer, label) for answer, label in zip(answers, labels, strict=True)]
    whole = sum(below for _, below in counts)
    return sum(above for above, _ in counts) / whole if whole else 0.0


@dataclass(frozen=True)
class ObjectQuestion:
    """A question whether an object is in an image.

    Attributes:
        place (`int`): Of the image.
        object (`str`): What is asked for.
        label (`str`): `"yes"` or `"no"`.
    """

    place: int
    object: str
    label: str


def object_questions(
    objects: Sequence[Sequence[str]], sampling: str, *, per_image: int = 6, seed: int = 0
) -> list[ObjectQuestion]:
    """Makes questions from what is in each image: half for objects that are there, half for objects that are not.

    An image with fewer objects gets fewer questions, as many of either kind.

    Args:
        objects (list of `list[str]`): What is in each image.
        sampling (`str`): Which absent objects are asked for: `"random"`, drawn from all of the set; `"popular"`, the
            most frequent; `"adversarial"`, those most often in one image with objects that are there.
        per_image (`int`): Questions about an image at most; an even number. Authors: 6.
        seed (`int`): Of the draws.

    Raises:
        ValueError: for an unknown sampling, an odd number, and an image of which nothing is known.

    Example:
        >>> objects = [["cat", "sofa"], ["dog", "sofa"], ["dog", "ball", "sofa"]]
        >>> [(q.object, q.label) for q in object_questions(objects, "popular", per_image=2) if q.place == 0][1]
        ('dog', 'no')
    """
    check_choice("sampling", sampling, SAMPLINGS)
    if check_count("per_image", per_image) % 2:
        raise ValueError(f"You passed per_image={per_image}, but half of the questions have the answer yes. Pass 6.")
    empty = [place for place, present in enumerate(objects) if not present]
    if empty:
        raise ValueError(
            f"You passed no objects for {len(empty)} images, such as image {empty[0]}, so no question about them has "
            "the answer yes. Leave these images out."
        )

    present = [list(dict.fromkeys(of_image)) for of_image in objects]
    frequency = Counter(name for of_image in present for name in of_image)
    beside = _beside_each_other(present)
    generator = np.random.default_rng(seed)

    questions = []
    for place, of_image in enumerate(present):
        absent = sorted(name for name in frequency if name not in of_image)
        generator.shuffle(absent)
        if sampling == "popular":
            absent.sort(key=lambda name: -frequency[name])
        if sampling == "adversarial":
            absent.sort(key=lambda name, there=tuple(of_image): -sum(beside[one, name] for one in there))

        count = min(per_image // 2, len(of_image), len(absent))
        asked = [str(name) for name in generator.permutation(of_image)[:count]]
        questions += [ObjectQuestion(place, name, YES) for name in asked]
        questions += [ObjectQuestion(place, name, NO) for name in absent[:count]]
    return questions


def _beside_each_other(present: Sequence[Sequence[str]]) -> Counter[tuple[str, str]]:
    """In how many images two objects are together."""
    return Counter((one, other) for of_image in present for one in of_image for other in of_image if one != other)
