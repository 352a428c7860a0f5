"""The images and tasks that a command line of `pmgaft attack-vlm` asks for, all checked before any attack."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from .attack_vlm_checks import read_targets
from .attack_vlm_protocol import CAPTION_PROMPT, ROBUST_CLIP, SHORT_ANSWER, tokens_to_write

if TYPE_CHECKING:  # what brings in transformers' models comes where it is used, so that --help is quick
    from ..data.rows import ImageRows
    from ..downstream.tasks import AnswerTask
    from ..downstream.vlm import VisionLanguageModel

TOKENS_OF_A_LETTER = 2  # and its end
Question = tuple[str, list[str]]  # and its right answers


@dataclass
class AskedSet:
    """A set of images with what is asked about them, read by row.

    Args:
        data: The rows.
        captions (`Callable`, *optional*): From a row's number to its captions.
        questions (`dict[str, Callable]`): By task, from a row's number to a question and its right answers.
        yes_no (`Callable`, *optional*): From a row's number to a category, a question and "yes" or "no".
        objects (`Callable`, *optional*): From a row's number to what is in the image.
        choices (`Callable`, *optional*): From a row's number to a question, what to choose from, and which is right.
    """

    data: Any
    captions: Callable[[int], list[str]] | None = None
    questions: dict[str, Callable[[int], Question]] = field(default_factory=dict)
    yes_no: Callable[[int], tuple[str, str, str]] | None = None
    objects: Callable[[int], list[str]] | None = None
    choices: Callable[[int], tuple[str, list[str], int]] | None = None

    def check(self, reader: ImageRows) -> None:
        """Reads every row, and raises one `ValueError` that names all those that cannot be used."""
        from ..data.rows import check_rows

        asked = (self.captions, *self.questions.values(), self.yes_no, self.objects, self.choices)

        def read(row: Mapping[str, Any], position: int) -> None:
            reader.pixels(row[reader.image_column], position)
            for ask in asked:
                if ask is not None:
                    ask(position)

        check_rows(reader.rows(), read)


def load_tasks(
    args: argparse.Namespace, model: VisionLanguageModel
) -> tuple[list[int], list[torch.Tensor], list[AnswerTask]]:
    """The rows that are drawn, their images, each `[3,H,W]` in [0,1], and the tasks."""
    from ..data.rows import ImageRows
    from ..evaluation.plan import sample_ids

    if args.eval_set is None:
        asked, prompt = emoji_set(args), "describe it"
    else:
        asked = user_set(args, model.processor)
        prompt = CAPTION_PROMPT if args.protocol == ROBUST_CLIP else "Describe the image."
    if not len(asked.data):
        raise ValueError("The set has no images, so there is nothing to attack. Pass another set or split.")

    rows = sample_ids(len(asked.data), args.num_images, args.seed)
    reader = ImageRows(asked.data, model.pixels.reader, normalize=False, needs_labels=False)
    if args.check_data:
        asked.check(reader)
    images = [reader.pixels(reader.dataset[row][reader.image_column], row).clamp(0, 1) for row in rows]
    tasks = make_tasks(args, args.prompt or prompt, rows, asked)
    check_tasks(tasks, model, images)
    return rows, [image.to(model.model.device) for image in images], tasks


# ---- Sets ----


def emoji_set(args: argparse.Namespace) -> AskedSet:
    """The embedded emoji with their descriptions, two questions about each, and what is in them.

    POPE is asked about those in which something is that others have too.
    """
    from . import emoji_questions

    data = emoji_questions.load_rows(args.split)
    if "pope" in args.tasks:
        data = [row for row in data if row[emoji_questions.OBJECTS]]

    def read(question: str) -> Callable[[int], Question]:
        return lambda row: (question, [data[row][question]])

    questions = {question: read(question) for question in (emoji_questions.NAME, emoji_questions.GROUP)}
    return AskedSet(
        data,
        captions=lambda row: [data[row][emoji_questions.DESCRIBE]],
        questions=questions,
        objects=lambda row: data[row][emoji_questions.OBJECTS],
    )


def user_set(args: argparse.Namespace, processor: Any) -> AskedSet:
    """The set that the command line names. Without a column for its task, nothing is asked."""
    from ..data.captions import Captions
    from ..data.columns import column_names
    from ..data.sources import load_images, parse_set

    data = load_images(*parse_set(args.eval_set))
    columns = column_names(data)
    asked = AskedSet(data)

    def texts_of(name: str) -> Callable[[int], list[str]]:
        reader = Captions(getattr(args, name) or "auto", columns, data.features, processor)

        def read(row: int) -> list[str]:
            try:
                return reader.texts(data[row], row)
            except ValueError as error:
                raise ValueError(f"{error} The column is that of --{name}.") from error

        return read

    if "caption" in args.tasks:
        asked.captions = texts_of("caption_column")
    if "vqa" in args.tasks:
        _check_columns(args, "vqa", ["question_column", "answer_column"], columns)
        asked.questions["vqa"] = _vqa(texts_of("question_column"), texts_of("answer_column"), args.protocol)
    if "pope" in args.tasks and args.object_column:
        asked.objects = texts_of("object_column")
    elif "pope" in args.tasks:
        _check_columns(args, "pope", ["question_column", "answer_column"], columns, "or --object_column alone")
        category = texts_of("category_column") if args.category_column else None
        asked.yes_no = _yes_no(texts_of("question_column"), texts_of("answer_column"), category)
    if "scienceqa" in args.tasks:
        _check_columns(args, "scienceqa", ["question_column", "choice_column", "answer_column"], columns)
        choices = texts_of("choice_column")
        asked.choices = _choices(texts_of("question_column"), choices, data, args)
    return asked


def _check_columns(
    args: argparse.Namespace, task: str, names: Sequence[str], columns: Sequence[str], otherwise: str = ""
) -> None:
    missing = [name for name in names if getattr(args, name) is None]
    if missing:
        flags = " and ".join(f"--{name}" for name in names)
        raise ValueError(
            f"You passed the task {task} without {' and '.join(f'--{name}' for name in missing)}, so there is nothing "
            f"to ask. Pass {flags} {otherwise}".rstrip()
            + f", of {columns}, or name other tasks with --tasks."
        )


def _vqa(
    questions: Callable[[int], list[str]], answers: Callable[[int], list[str]], protocol: str | None
) -> Callable[[int], Question]:
    suffix = SHORT_ANSWER if protocol == ROBUST_CLIP else ""
    return lambda row: (questions(row)[0] + suffix, answers(row))


def _yes_no(
    questions: Callable[[int], list[str]],
    answers: Callable[[int], list[str]],
    categories: Callable[[int], list[str]] | None,
) -> Callable[[int], tuple[str, str, str]]:
    def read(row: int) -> tuple[str, str, str]:
        label = answers(row)[0].lower()
        if label not in ("yes", "no"):
            raise ValueError(
                f"Row {row} has the answer {label!r} in the column of answers, but POPE's are yes or no. Pass another "
                "column, or ask by the task vqa."
            )
        return categories(row)[0] if categories else "", questions(row)[0], label

    return read


def _choices(
    questions: Callable[[int], list[str]],
    choices: Callable[[int], list[str]],
    data: Any,
    args: argparse.Namespace,
) -> Callable[[int], tuple[str, list[str], int]]:
    def read(row: int) -> tuple[str, list[str], int]:
        offered, right = choices(row), data[row][args.answer_column]
        if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(offered):
            raise ValueError(
                f"Row {row} has the answer {right!r}, but it has {len(offered)} choices, of which the answer is the "
                "number, from 0. Pass another column."
            )
        return questions(row)[0], offered, right

    return read


# ---- Tasks ----


def make_tasks(args: argparse.Namespace, prompt: str, rows: Sequence[int], asked: AskedSet) -> list[AnswerTask]:
    """The tasks, in order."""
    tasks = targeted_tasks(args, prompt, len(rows)) if "targeted" in args.tasks else []
    if "caption" in args.tasks:
        tasks.append(caption_task(args, prompt, [asked.captions(row) for row in rows]))
    if "vqa" in args.tasks:
        tasks += [vqa_task(args, name, [read(row) for row in rows]) for name, read in asked.questions.items()]
    if "pope" in args.tasks:
        tasks += pope_tasks(args, rows, asked)
    if "scienceqa" in args.tasks:
        tasks.append(choice_task(args, [asked.choices(row) for row in rows]))
    return tasks


def check_tasks(tasks: Sequence[AnswerTask], model: VisionLanguageModel, images: Sequence[torch.Tensor]) -> None:
    """Raises `ValueError` for a target that a model cannot write, and a question that leaves no room for an answer."""
    for task in tasks:
        sizes = [tuple(images[place].shape[-2:]) for place in task.image_places]
        for question, size in dict.fromkeys(zip(task.questions, sizes, strict=True)):
            if task.is_targeted:
                model.check_target(task.answers[0][0], question, task.max_new_tokens, size)
            model.check_room(question, task.max_new_tokens, size)


def targeted_tasks(args: argparse.Namespace, prompt: str, count: int) -> list[AnswerTask]:
    """A task for each target, on the first images."""
    from ..downstream.scores import SuccessScore
    from ..downstream.tasks import TARGET, AnswerTask

    count = min(count, args.target_images or count)
    tokens = tokens_to_write(args, TARGET)
    tasks = []
    for target in read_targets(args):
        score = SuccessScore(target, ignores_case=args.protocol == ROBUST_CLIP)
        answers = [[target]] * count
        tasks.append(AnswerTask(f"target {target!r}", TARGET, [prompt] * count, answers, score, max_new_tokens=tokens))
    return tasks


def caption_task(args: argparse.Namespace, prompt: str, captions: list[list[str]]) -> AnswerTask:
    """Captions, by the score that the command line names."""
    from ..downstream.scores import ChrfScore, CiderScore
    from ..downstream.tasks import CAPTION, AnswerTask

    if args.caption_score == "cider":
        score = CiderScore(captions, args.cider_threshold / 100)
    else:
        score = ChrfScore(captions)
    tokens = tokens_to_write(args, CAPTION)
    return AnswerTask("caption", CAPTION, [prompt] * len(captions), captions, score, max_new_tokens=tokens)


def vqa_task(args: argparse.Namespace, name: str, pairs: Sequence[Question]) -> AnswerTask:
    """Questions with several right answers each."""
    from ..downstream.scores import VqaScore
    from ..downstream.tasks import VQA, AnswerTask

    answers = [answers for _, answers in pairs]
    score = VqaScore(answers, args.vqa_rule, cuts=args.protocol == ROBUST_CLIP)
    questions = [question for question, _ in pairs]
    return AnswerTask(name, VQA, questions, answers, score, max_new_tokens=tokens_to_write(args, VQA))


def pope_tasks(args: argparse.Namespace, rows: Sequence[int], asked: AskedSet) -> list[AnswerTask]:
    """A task for each category: those of the set, or the three samplings of what is not in its images."""
    from ..downstream.pope import SAMPLINGS, is_there, object_questions
    from ..downstream.scores import YesNoScore
    from ..downstream.tasks import YES_NO, AnswerTask

    by_category: dict[str, list[tuple[int, str, str]]] = {}
    if asked.objects is not None:
        objects = [asked.objects(row) for row in rows]
        for sampling in SAMPLINGS:
            made = object_questions(objects, sampling, seed=args.seed)
            by_category[sampling] = [(one.place, is_there(one.object), one.label) for one in made]
    else:
        for place, row in enumerate(rows):
            category, question, label = asked.yes_no(row)
            by_category.setdefault(category, []).append((place, question, label))

    return [
        AnswerTask(
            f"pope {category}".strip(),
            YES_NO,
            [question for _, question, _ in questions],
            [[label.capitalize()] for _, _, label in questions],
            YesNoScore([label for _, _, label in questions]),
            image_places=[place for place, _, _ in questions],
            max_new_tokens=tokens_to_write(args, YES_NO),
            attacked=args.protocol != ROBUST_CLIP,
        )
        for category, questions in by_category.items()
    ]


def choice_task(args: argparse.Namespace, asked: Sequence[tuple[str, list[str], int]]) -> AnswerTask:
    """Questions with choices, which are named by letters."""
    from ..downstream.science_qa import LETTERS, choice_prompt
    from ..downstream.scores import ChoiceScore
    from ..downstream.tasks import CHOICE, AnswerTask

    counts = [len(choices) for _, choices, _ in asked]
    by_likelihood = args.choice_rule == "likelihood"
    return AnswerTask(
        "scienceqa",
        CHOICE,
        [choice_prompt(question, choices) for question, choices, _ in asked],
        [[LETTERS[right]] for _, _, right in asked],
        ChoiceScore([right for _, _, right in asked], counts),
        options=[list(LETTERS[:count]) for count in counts] if by_likelihood else None,
        max_new_tokens=TOKENS_OF_A_LETTER if by_likelihood else tokens_to_write(args, CHOICE),
        attacked=args.protocol != ROBUST_CLIP,
    )
