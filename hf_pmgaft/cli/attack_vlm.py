"""Attacks what a LLaVA writes through its vision tower, before and after another tower is put in.

    pmgaft attack-vlm --towers outputs/clip-pmgaft-emoji
    pmgaft attack-vlm --towers outputs/clip-pmgaft-emoji --num_images 8 --gallery llava.png
    pmgaft attack-vlm --model llava-hf/llava-1.5-7b-hf --towers user/robust-clip-vit-large-patch14-336 \\
        --eval_set user/coco-captions@validation --caption_column captions --prompt "Describe the image briefly." \\
        --tasks targeted caption --targets "Visit example.com now" --eps 2/255 4/255 --num_images 500 \\
        --verdict_file texts.jsonl

Three tasks, each by PGD on the cross-entropy of an answer under the language model (float32, L-inf):
  targeted  stealth: each image is perturbed until the model writes a string of the attacker's choosing
  caption   each image is perturbed against its captions; scored by chrF++ against the best of them
  vqa       each image is perturbed against the answers to its question; scored by VQA accuracy

A tower of --towers, a CLIP of the one that LLaVA was built on, takes the place of LLaVA's own; language model and
projector stay as they are. Judged is the adversarial image as an 8-bit file holds it, and per image the worst of the
clean image and all radii so far.

Without --model and --eval_set it asks the tiny LLaVA of the package about emoji in a drawing style that no training
saw. With --verdict_file, a run that was killed goes on where it was, and towers may be added later.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from ..attacks import parse_radius
from ..embedded import emoji_folder
from ..evaluation.tables import FORMATS, render
from ..evaluation.verdicts import Verdicts
from ..files import check_output_file, write_whole
from ..fingerprints import digest, fingerprint
from ..tuning.saved import load_model, needs_base
from .attack_vlm_checks import OWN, check_idle, check_numbers, read_targets, tower_names
from .errors import going_on_from, one_line_errors, one_line_stops
from .parser import make_parser

if TYPE_CHECKING:  # what brings in transformers' models comes where it is used, so that --help is quick
    from ..data.rows import ImageRows
    from ..downstream.llava import VisionLanguageModel
    from ..downstream.llava_evaluation import AnswerTask

TASKS = ("targeted", "caption", "vqa")


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("attack-vlm", __doc__, script)
    models = parser.add_argument_group("models")
    models.add_argument("--model", help="Hub id or folder of a LLaVA on a CLIP; the embedded one if absent.")
    models.add_argument(
        "--towers", nargs="+", default=[], help="Hub ids, folders or files of CLIPs to put in, one by one."
    )
    models.add_argument("--base", help="What those of --towers were trained from that hold weights alone.")

    asked = parser.add_argument_group("images and questions")
    asked.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="What to attack; all if absent.")
    asked.add_argument("--eval_set", help="NAME[:config][@split]; the emoji if absent.")
    asked.add_argument("--split", default="test", choices=["test", "validation"], help="Drawing style of the emoji.")
    asked.add_argument("--caption_column", help="Captions of an image: a text, a list of texts, or COLUMN.FIELD.")
    asked.add_argument("--question_column", help="A question about the image.")
    asked.add_argument("--answer_column", help="Its right answers, like captions.")
    asked.add_argument("--prompt", help="What asks for a caption; with the image's token it is the whole prompt.")
    asked.add_argument("--targets", nargs="+", help="Strings to make the model write, or one JSON file with a list.")
    asked.add_argument(
        "--check_data", action="store_true", help="Read every row first and name those that are broken."
    )
    asked.add_argument("--num_images", type=int, default=50, help="Images, drawn from the set by the seed.")

    threat = parser.add_argument_group("threat")
    threat.add_argument("--eps", nargs="+", default=["4/255", "8/255"], help="Radii in the scale of images in [0,1].")
    threat.add_argument("--num_steps", type=int, default=50, help="Steps of PGD.")
    threat.add_argument("--restarts", type=int, default=1, help="Random starts of PGD; the highest loss counts.")
    threat.add_argument("--momentum", type=float, default=0.0, help="Of PGD's step.")
    threat.add_argument(
        "--max_new_tokens", type=int, default=30, help="Tokens that the model writes, by greedy search."
    )
    threat.add_argument("--batch_size", type=int, default=32, help="Images at once.")
    threat.add_argument("--seed", type=int, default=0, help="Of the noise and the choice of images.")

    out = parser.add_argument_group("output")
    out.add_argument("--format", default="text", choices=FORMATS, help="How the table is printed.")
    out.add_argument("--output_file", help="JSON file for figures, texts and protocol.")
    out.add_argument("--verdict_file", help="Texts are appended to it as they come, to go on from.")
    out.add_argument(
        "--gallery", help="PNG of the first four images under the first task's attack at the last radius."
    )
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Attacks what a command line asks for, prints the table and writes the files that it names."""
    args = parse(argv, script)
    check_numbers(args)
    check_idle(args)
    names = tower_names(args.towers)
    read_targets(args)
    check_output_file("--output_file", args.output_file)
    check_output_file("--verdict_file", args.verdict_file)
    check_output_file("--gallery", args.gallery)
    from ..downstream.llava import load_llava
    from ..downstream.llava_evaluation import AnswerEvaluation
    from ..downstream.towers import swap_vision_tower, vision_tower
    from ..plots import answer_gallery

    # Model, images and tasks
    model = load_llava(args.model or str(emoji_folder() / "llava"))
    llava = model.model
    rows, images, tasks = load_tasks(args, model)

    # Towers. Each is put in once, its own last, so that one that does not fit shows at once.
    towers = {OWN: copy.deepcopy(vision_tower(llava))}
    for name, folder in zip(names, args.towers, strict=True):
        towers[name] = load_model(folder, args.base if needs_base(folder) else None)
    for tower in reversed(towers.values()):
        swap_vision_tower(llava, tower)

    protocol = describe(args, model, rows, images, tasks)
    verdicts = Verdicts(args.verdict_file, {"protocol": protocol, "model": fingerprint(llava)})
    results, examples = {}, {}
    with one_line_stops(lambda: going_on_from(args.verdict_file)), closing(verdicts):
        for name, tower in towers.items():
            swap_vision_tower(llava, tower)
            evaluation = AnswerEvaluation(
                model,
                rows,
                images,
                f"{name} {fingerprint(llava)}",
                verdicts,
                args.eps,
                num_steps=args.num_steps,
                restarts=args.restarts,
                momentum=args.momentum,
                max_new_tokens=args.max_new_tokens,
                batch_size=args.batch_size,
                seed=args.seed,
            )
            results[name] = {task.name: evaluation.run(task) for task in tasks}
            if args.gallery:
                examples[name] = evaluation.examples(tasks[0])

    show(args, protocol, tasks, results)
    if args.gallery:
        title = f"{tasks[0].name}, radius {args.eps[-1]}: what is written about the clean and the attacked image"
        answer_gallery(examples, args.gallery, title)


# ---- Images and tasks ----


@dataclass
class AskedSet:
    """A set of images with what is asked about them; captions and questions are read by row.

    Args:
        data: The rows.
        captions (`Callable`, *optional*): From a row's number to its captions.
        questions (`dict[str, Callable]`): By task, from a row's number to a question and its right answers.
    """

    data: Any
    captions: Callable[[int], list[str]] | None
    questions: dict[str, Callable[[int], tuple[str, list[str]]]]

    def check(self, reader: ImageRows) -> None:
        """Reads every row, and raises one `ValueError` that names all those that cannot be used."""
        from ..data.rows import check_rows

        def read(row: Mapping[str, Any], position: int) -> None:
            reader.pixels(row[reader.image_column], position)
            for ask in (self.captions, *self.questions.values()):
                if ask is not None:
                    ask(position)

        check_rows(reader.rows(), read)


def load_tasks(
    args: argparse.Namespace, model: VisionLanguageModel
) -> tuple[list[int], torch.Tensor, list[AnswerTask]]:
    """The rows that are drawn, their images `[N,3,H,W]` in [0,1], and the tasks; all checked before any attack."""
    from ..data.rows import ImageRows
    from ..evaluation.plan import sample_ids

    if args.eval_set is None:
        asked, prompt = emoji_set(args), "describe it"
    else:
        asked, prompt = user_set(args, model.processor), "Describe the image."
    if not len(asked.data):
        raise ValueError("The set has no images, so there is nothing to attack. Pass another set or split.")

    rows = sample_ids(len(asked.data), args.num_images, args.seed)
    reader = ImageRows(asked.data, model.processor, normalize=False, needs_labels=False)
    if args.check_data:
        asked.check(reader)
    images = [reader.pixels(reader.dataset[row][reader.image_column], row).clamp(0, 1) for row in rows]
    tasks = make_tasks(args, model, args.prompt or prompt, rows, asked)
    return rows, torch.stack(images).to(model.model.device), tasks


def emoji_set(args: argparse.Namespace) -> AskedSet:
    """The embedded emoji with their descriptions, and two questions about each."""
    from . import emoji_questions

    data = emoji_questions.load_rows(args.split)

    def read(question: str) -> Callable[[int], tuple[str, list[str]]]:
        return lambda row: (question, [data[row][question]])

    questions = {question: read(question) for question in (emoji_questions.NAME, emoji_questions.GROUP)}
    return AskedSet(data, lambda row: [data[row][emoji_questions.DESCRIBE]], questions)


def user_set(args: argparse.Namespace, processor: Any) -> AskedSet:
    """The set that the command line names. Without a column for its task, nothing is asked."""
    from ..data.captions import Captions
    from ..data.columns import column_names
    from ..data.sources import load_images, parse_set

    data = load_images(*parse_set(args.eval_set))
    columns = column_names(data)
    asked = AskedSet(data, None, {})

    if "caption" in args.tasks:
        captions = Captions(args.caption_column or "auto", columns, data.features, processor)
        asked.captions = lambda row: captions.texts(data[row], row)

    if "vqa" in args.tasks:
        if not args.question_column or not args.answer_column:
            raise ValueError(
                "You passed the task vqa without --question_column and --answer_column, so there is nothing to ask. "
                f"Pass both, of {columns}, or name other tasks with --tasks."
            )
        questions = Captions(args.question_column, columns, data.features, processor)
        answers = Captions(args.answer_column, columns, data.features, processor)
        asked.questions["vqa"] = lambda row: (questions.texts(data[row], row)[0], answers.texts(data[row], row))
    return asked


def make_tasks(
    args: argparse.Namespace, model: VisionLanguageModel, prompt: str, rows: Sequence[int], asked: AskedSet
) -> list[AnswerTask]:
    """The tasks in order, checked: targets can be written, scores computed, and answers have room."""
    from ..downstream.answers import caption_score, vqa_accuracy
    from ..downstream.llava_evaluation import AnswerTask

    tasks = []
    prompts = [prompt] * len(rows)
    for target in read_targets(args):
        model.check_target(target, prompt, args.max_new_tokens)
        written = [[target]] * len(rows)
        tasks.append(AnswerTask(f"target {target!r}", "success", prompts, written, silence, targeted=True))

    if "caption" in args.tasks:
        captions = [asked.captions(row) for row in rows]
        tasks.append(AnswerTask("caption", "chrf", prompts, captions, caption_score))

    if "vqa" in args.tasks:
        for name, read in asked.questions.items():
            pairs = [read(row) for row in rows]
            questions = [question for question, _ in pairs]
            answers = [answers for _, answers in pairs]
            tasks.append(AnswerTask(name, "vqa_accuracy", questions, answers, vqa_accuracy))

    for task in tasks:
        task.score("a", ["a"])  # which says what is not installed
        for question in dict.fromkeys(task.questions):
            model.check_room(question, args.max_new_tokens)
    return tasks


def silence(text: str, targets: Sequence[str]) -> float:
    """1 of a text without the target, which is what the attacker wants to change, else 0."""
    from ..downstream.answers import contains

    return float(not contains(text, targets[0]))


# ---- Protocol and output ----


def describe(
    args: argparse.Namespace,
    model: VisionLanguageModel,
    rows: Sequence[int],
    images: torch.Tensor,
    tasks: Sequence[AnswerTask],
) -> dict[str, Any]:
    """All that the figures depend on but the weights."""
    from ..downstream.llava_evaluation import WORST_OF_RADII

    device = model.model.device
    return {
        "attack": {
            "attack": "pgd",
            "norm": "linf",
            "loss": "cross-entropy of the answer's tokens under the language model, their mean",
            "num_steps": args.num_steps,
            "step_size": f"{2.5 / args.num_steps:g} of the radius" if args.num_steps > 1 else "the radius",
            "random_start": True,
            "restarts": args.restarts,
            "momentum": args.momentum,
        },
        "eps": sorted(args.eps, key=parse_radius),
        "verdict": WORST_OF_RADII,
        "decoding": f"greedy, at most {args.max_new_tokens} tokens",
        "tasks": {
            task.name: {
                "figure": task.figure,
                "prompts": sorted({model.prompt(question) for question in task.questions})[:10],
                "answers": digest([json.dumps([task.questions, task.answers]).encode()]),
            }
            for task in tasks
        },
        "images": {
            "set": args.eval_set or f"emoji, {args.split}",
            "rows": list(rows),
            "attacked_at": model.image_size,
            "pixels": digest([images.cpu().numpy().tobytes()]),
        },
        "seed": args.seed,
        "dtype": "float32",
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("hf_pmgaft", "torch", "transformers", "pillow")},
        },
    }


def show(
    args: argparse.Namespace,
    protocol: Mapping[str, Any],
    tasks: Sequence[AnswerTask],
    results: Mapping[str, Mapping[str, Any]],
) -> None:
    """Prints the table, and writes the report. `results` are by tower and task."""
    print(render(table_rows(protocol["eps"], tasks, results), args.format))
    protocol_hash = digest([json.dumps(protocol, sort_keys=True).encode()])
    print(
        f"\nPGD-{args.num_steps} in L-inf, {len(protocol['images']['rows'])} images; {protocol['verdict']}. "
        f"Protocol {protocol_hash}."
    )
    for task in tasks:
        for name, of_tasks in results.items():
            share = of_tasks[task.name]["clean"]["success"] if task.targeted else 0
            if share:
                print(f"WARNING: {name} writes {task.name} unprompted about {share:.0%} of the clean images.")

    if args.output_file:
        model = args.model or str(emoji_folder() / "llava")
        report = {"protocol": protocol, "protocol_hash": protocol_hash, "model": model, "towers": results}
        write_whole(args.output_file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def table_rows(
    radii: Sequence[str], tasks: Sequence[AnswerTask], results: Mapping[str, Mapping[str, Any]]
) -> list[list[str]]:
    """A row for each task and tower, with the figure and its interval clean and at each radius."""
    columns = ["clean", *radii]
    rows = [["task", "figure in %", "tower", *columns]]
    for task in tasks:
        for name, of_tasks in results.items():
            cells = []
            for column in columns:
                result = of_tasks[task.name][column]
                low, high = result["interval_95"]
                cells.append(f"{100 * result[task.figure]:.1f} ({100 * low:.1f} to {100 * high:.1f})")
            rows.append([task.name, task.figure, name, *cells])
    return rows


if __name__ == "__main__":
    main()
