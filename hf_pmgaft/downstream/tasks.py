"""`AnswerTask`: what is asked about images, what the attack goes for, and how texts score."""

from __future__ import annotations

from dataclasses import dataclass, field

from .scores import Score

CAPTION, VQA, TARGET, CHOICE, YES_NO = "caption", "vqa", "target", "choice", "yes or no"


@dataclass
class AnswerTask:
    """What is asked about images, which answers the attack goes for, and how texts score.

    Args:
        name (`str`): Of the task in tables.
        kind (`str`): `"caption"`, `"vqa"`, `"target"`, `"choice"` or `"yes or no"`; an ensemble attacks each in
            another way. Answers to a target are made likely, others unlikely.
        questions (`list[str]`): N.
        answers (list of `list[str]`): For each question one or more.
        score (`Score`): Of texts by their places.
        image_places (`list[int]`, *optional*): Which image each question is about; the one at its own place if absent.
        options (list of `list[str]`, *optional*): What there is to choose from, for each question. The likeliest is
            taken, in place of what the model writes.
        max_new_tokens (`int`): Length of a text.
        attacked (`bool`): Whether it is more than a look at the clean images.

    Example:
        >>> from hf_pmgaft.downstream.scores import VqaScore
        >>> task = AnswerTask("colours", VQA, ["which colour?"], [["red"]], VqaScore([["red"]]))
        >>> task.score.of("red", 0)
        1.0
    """

    name: str
    kind: str
    questions: list[str]
    answers: list[list[str]]
    score: Score
    image_places: list[int] = field(default_factory=list)
    options: list[list[str]] | None = None
    max_new_tokens: int = 30
    attacked: bool = True

    def __post_init__(self) -> None:
        empty = [place for place, of_question in enumerate(self.answers) if not of_question]
        if empty:
            raise ValueError(
                f"You passed no answers to {len(empty)} of {len(self.questions)} questions of the task {self.name!r}, "
                f"such as question {empty[0]}, so that no attack has an aim and no text a score. Pass one or more."
            )
        if not self.image_places:
            self.image_places = list(range(len(self.questions)))

    @property
    def is_targeted(self) -> bool:
        """Whether the attack makes the answers likely, instead of unlikely."""
        return self.kind == TARGET
