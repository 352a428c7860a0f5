"""VQA accuracy (Antol et al., ICCV 2015, arXiv 1505.00468), and how answers are made comparable."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..registry import check_choice

# When answers are normalised: always, as OpenFlamingo and RobustVLM do, or only where the right answers differ from
# each other, as the official evaluation does.
RULES = ("always", "official")
ENOUGH = 3  # people who must agree for full marks

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = {"a", "an", "the"}

# Words of the official table of contractions. It restores each from its spelling without one of its apostrophes.
_RESTORED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
CONTRACTIONS = {
    word[: mark.start()] + word[mark.end() :]: word for word in _RESTORED for mark in re.finditer("'", word)
}
CONTRACTIONS["somebody'd"] = "somebodyd"  # as the table has it


def normalise_answer(text: str) -> str:
    """An answer as the official evaluation compares them: lower case, digits, no articles and no punctuation.

    A mark is left out where a space stands beside one like it or a comma between digits, and is else a space.

    Example:
        >>> normalise_answer("A dog, two cats!"), normalise_answer("dont know"), normalise_answer("black/white")
        ('dog 2 cats', "don't know", 'black white')
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    has_large_number = re.search(r"\d,\d", text) is not None

    written = text
    for mark in _MARKS:
        stands_apart = f"{mark} " in text or f" {mark}" in text
        written = written.replace(mark, "" if stands_apart or has_large_number else " ")
    written = re.sub(r"\.(?!\d)", "", written)

    words = [_DIGITS.get(word, word) for word in written.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def cut_answer(text: str) -> str:
    """What is read of a generated text: up to the next question, and up to a comma.

    Example:
        >>> cut_answer("red bus, on a street Question: how")
        'red bus'
    """
    return re.split("Question|Answer|Short", text)[0].split(", ")[0]


def vqa_accuracy(text: str, answers: Sequence[str], rule: str = "always") -> float:
    """VQA accuracy of an answer, from 0 to 1: the mean over the right answers of min(matches among the others / 3, 1).

    The others are those at other positions. A single right answer counts as all of them.

    Args:
        text (`str`): What was answered.
        answers (`list[str]`): Right answers, ten in VQAv2.
        rule (`str`): `"always"` normalises all answers, `"official"` only where the right ones differ from each other.

    Raises:
        ValueError: without right answers, and for an unknown rule.

    Example:
        >>> vqa_accuracy("Two cats.", ["2 cats"]), vqa_accuracy("stop", ["stop", *["go"] * 9])
        (1.0, 0.3)
        >>> vqa_accuracy("the end", ["The End"] * 10), vqa_accuracy("the end", ["The End"] * 10, rule="official")
        (1.0, 0.0)
    """
    check_choice("rule of VQA accuracy", rule, RULES)
    if not answers:
        raise ValueError("You passed no right answers, so no answer can be scored. Pass one or more.")
    if rule == "always" or len(set(answers)) > 1:
        text = normalise_answer(text)
        answers = [normalise_answer(answer) for answer in answers]
    if len(answers) == 1:
        return float(text == answers[0])

    matches = sum(answer == text for answer in answers)
    scores = [min((matches - (answer == text)) / ENOUGH, 1.0) for answer in answers]
    return sum(scores) / len(scores)


def by_frequency(answers: Sequence[str]) -> list[str]:
    """Different answers, the most frequent first; of equally many the one that was met first.

    Example:
        >>> by_frequency(["yes", "no", "no", "maybe"])
        ['no', 'yes', 'maybe']
    """
    return [answer for answer, _ in Counter(answers).most_common()]
