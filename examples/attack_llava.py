"""Attacks what a LLaVA writes through its vision tower, before and after another tower is put in.

    python examples/attack_llava.py --towers outputs/clip-pmgaft-emoji
    python examples/attack_llava.py --towers outputs/clip-pmgaft-emoji --num_images 8 --gallery llava.png
    python examples/attack_llava.py --model llava-hf/llava-1.5-7b-hf --towers user/robust-clip-vit-large-patch14-336 \\
        --eval_set user/coco-captions@validation --caption_column captions --prompt "Describe the image briefly." \\
        --targets "Visit example.com now" --eps 2/255 4/255 --num_images 500 --verdict_file texts.jsonl

Three tasks, each by PGD on the cross-entropy of an answer under the language model (float32, L-inf):
  targeted  stealth: each image is perturbed until the model writes a string of the attacker's choosing
  caption   each image is perturbed against its captions; scored by chrF++ against the best of them
  vqa       each image is perturbed against the answers to its question; scored by VQA accuracy

A tower of --towers, a CLIP of the one that LLaVA was built on, takes the place of LLaVA's own; language model and
projector stay as they are. Judged is the adversarial image as an 8-bit file holds it, and per image the worst of the
clean image and all radii so far.

Without --model and --eval_set it asks the tiny LLaVA of examples/emoji about emoji in a drawing style that no training
saw. With --verdict_file, a run that was killed goes on where it was, and towers may be added later.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from hf_pmgaft.attacks import parse_radius, sample_seeds
from hf_pmgaft.evaluation.intervals import wilson_interval
from hf_pmgaft.evaluation.tables import FORMATS, render
from hf_pmgaft.evaluation.verdicts import Verdicts
from hf_pmgaft.fingerprints import fingerprint
from hf_pmgaft.plots import answer_gallery

if TYPE_CHECKING:  # what brings in transformers' models comes where it is used, so that --help is quick
    from hf_pmgaft import VisionLanguageModel

EMOJI = Path(__file__).parent / "emoji"
TASKS = ("targeted", "caption", "vqa")
CLEAN, OWN = "clean", "own tower"
EMOJI_TARGETS = ("warning", "money bag")
VERDICT = "per image the worst of the clean image and all radii so far, of adversarial images rounded to 8 bits"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    models = parser.add_argument_group("models")
    models.add_argument("--model", default=str(EMOJI / "llava"), help="Hub id or folder of a LLaVA on a CLIP.")
    models.add_argument("--towers", nargs="+", default=[], help="Hub ids or folders of CLIPs to put in, one by one.")
    asked = parser.add_argument_group("images and questions")
    asked.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS, help="What to attack; all if absent.")
    asked.add_argument("--eval_set", help="NAME[:config][@split]; the emoji if absent.")
    asked.add_argument("--split", default="test", choices=["test", "validation"], help="Drawing style of the emoji.")
    asked.add_argument("--caption_column", help="Captions of an image: a text, a list of texts, or COLUMN.FIELD.")
    asked.add_argument("--question_column", help="A question about the image.")
    asked.add_argument("--answer_column", help="Its right answers, like captions.")
    asked.add_argument("--prompt", help="What asks for a caption; with the image's token it is the whole prompt.")
    asked.add_argument("--targets", nargs="+", help="Strings to make the model write, or one JSON file with a list.")
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


@dataclass
class Task:
    """What is asked about each of N images, which answers the attack goes for, and how a text scores.

    The score of a text is from 0 to 1, and the attacker wants it low; `figure` turns it into what is reported.
    """

    name: str
    figure: str
    questions: list[str]
    answers: list[list[str]]
    score: Callable[[str, Sequence[str]], float]
    targeted: bool = False

    def reported(self, score: float) -> float:
        """A mean score as the table gives it: the success of a targeted attack is what is missing to 1."""
        return 1 - score if self.targeted else score


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    from hf_pmgaft import load_model, swap_vision_tower, vision_tower

    check_numbers(args)
    model = load_llava(args.model)
    own = model.model
    rows, images, tasks = load_tasks(args, model)
    towers = {OWN: copy.deepcopy(vision_tower(own))}
    towers |= zip(tower_names(args.towers), map(load_model, args.towers), strict=True)
    for tower in [*towers.values()][::-1]:  # which ends with its own, so that one that does not fit shows at once
        swap_vision_tower(own, tower)
    protocol = describe(args, model, rows, images, tasks)
    verdicts = Verdicts(args.verdict_file, {"protocol": protocol, "model": fingerprint(own)})
    results, seen = {}, {}
    try:
        for name, tower in towers.items():
            swap_vision_tower(own, tower)
            bench = Bench(args, model, rows, images, f"{name} {fingerprint(own)}", verdicts)
            results[name] = {task.name: bench.run(task) for task in tasks}
            if args.gallery:
                seen[name] = bench.look(tasks[0])
    finally:
        verdicts.close()
    show(args, protocol, tasks, results)
    if args.gallery:
        title = f"{tasks[0].name}, radius {args.eps[-1]}: what is written about the clean and the attacked image"
        answer_gallery(seen, args.gallery, title)


class Bench:
    """One tower on all images: what the model writes, clean and at each radius, as far as it is not on file."""

    def __init__(self, args, model: VisionLanguageModel, rows: list[int], images: torch.Tensor, name: str, verdicts):
        self.args, self.model, self.rows, self.images = args, model, rows, images
        self.name, self.verdicts = name, verdicts

    def run(self, task: Task) -> dict[str, Any]:
        """By `"clean"` and radius: the texts, the worst score so far of each image, their mean and its interval.

        An image whose score is 0 is done: no larger radius has anything to gain.
        """
        places, found = list(range(len(self.rows))), {}
        worst = [1.0] * len(places)
        for eps in (None, *sorted(self.args.eps, key=parse_radius)):
            self.write(task, eps, [place for place in places if worst[place] > 0])
            given = self.verdicts.of(self.name, attack_key(task, eps))
            texts = {place: given[self.rows[place]] for place in places if self.rows[place] in given}
            for place, text in texts.items():
                worst[place] = min(worst[place], task.score(text, task.answers[place]))
            value = task.reported(sum(worst) / len(worst))
            found[eps or CLEAN] = {
                task.figure: value,
                "interval_95": wilson_interval(value, len(worst)),
                "worst_scores": list(worst),
                "texts": [texts.get(place) for place in places],
            }
        return found

    def write(self, task: Task, eps: str | None, places: Sequence[int]) -> None:
        """Texts of the images at `places`, clean or attacked at a radius."""
        given = self.verdicts.of(self.name, attack_key(task, eps))
        todo = [place for place in places if self.rows[place] not in given]
        size = self.args.batch_size
        for start in tqdm(range(0, len(todo), size), f"{self.name}: {attack_key(task, eps)}", disable=not todo):
            part = todo[start : start + size]
            shown = self.images[part] if eps is None else self.attack(task, eps, part)
            texts = self.model.write(shown, [task.questions[place] for place in part], self.args.max_new_tokens)
            self.verdicts.add(self.name, attack_key(task, eps), [self.rows[place] for place in part], texts)

    def attack(self, task: Task, eps: str, places: Sequence[int]) -> torch.Tensor:
        """Adversarial images, whose noise follows from the seed and the image's row."""
        from hf_pmgaft import attack_answers

        rows = torch.tensor([self.rows[place] for place in places], device=self.images.device)
        return attack_answers(
            self.model,
            self.images[list(places)],
            [task.questions[place] for place in places],
            [task.answers[place] for place in places],
            eps=eps,
            targeted=task.targeted,
            seeds=sample_seeds(self.args.seed, 0, rows),
            num_steps=self.args.num_steps,
            restarts=self.args.restarts,
            momentum=self.args.momentum,
        )

    def look(self, task: Task) -> tuple[torch.Tensor, list[list[str]]]:
        """The first images clean and attacked at the last radius, `[2,N,3,H,W]`, and what is written about them."""
        places = list(range(min(4, len(self.rows))))
        questions = [task.questions[place] for place in places]
        pair = torch.stack([self.images[places], self.attack(task, self.args.eps[-1], places)])
        return pair.cpu(), [self.model.write(shown, questions, self.args.max_new_tokens) for shown in pair]


def attack_key(task: Task, eps: str | None) -> str:
    """How texts are filed."""
    return f"{task.name}, {CLEAN if eps is None else f'linf {eps}'}"


def load_llava(name: str) -> VisionLanguageModel:
    """A LLaVA in float32 by its Hub id or folder.

    Raises:
        TypeError: if it is another model, which transformers would open as a LLaVA with random weights.
    """
    from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

    from hf_pmgaft import VisionLanguageModel

    kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
    if kind != LlavaForConditionalGeneration.config_class.model_type:
        raise TypeError(f"You passed the model {name!r}, which is a {kind} and no llava. Pass a LLaVA as --model.")
    model = LlavaForConditionalGeneration.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    return VisionLanguageModel(model.to(PartialState().device).eval(), processor)


def check_numbers(args: argparse.Namespace) -> None:
    """Raises `ValueError` for a number that leaves nothing to do, and a radius that is none."""
    for name in ("num_images", "num_steps", "restarts", "max_new_tokens", "batch_size"):
        if getattr(args, name) < 1:
            raise ValueError(f"You passed {name}={getattr(args, name)}, which leaves nothing to do. Pass 1 or more.")
    for eps in args.eps:
        parse_radius(eps)
    if PartialState().num_processes > 1:
        raise ValueError("You launched several processes, which would all do the same. Launch one.")


def tower_names(towers: Sequence[str]) -> list[str]:
    """What the towers are called: the last parts of their paths, if these tell them apart."""
    if len(set(towers)) < len(towers):
        raise ValueError(f"You passed a tower twice: {towers}. Name each once.")
    short = [Path(tower).name for tower in towers]
    return short if len({*short, OWN}) == len(short) + 1 else list(towers)


def load_tasks(args: argparse.Namespace, model: VisionLanguageModel) -> tuple[list[int], torch.Tensor, list[Task]]:
    """The rows that are drawn, their images `[N,3,H,W]` in [0,1], and the tasks; all checked before any attack."""
    from hf_pmgaft.data import LabelledImages
    from hf_pmgaft.evaluation import sample_ids

    data, captions, asked = (user_set if args.eval_set else emoji_set)(args, model.processor)
    if not len(data):
        raise ValueError("The set has no images, so there is nothing to attack. Pass another set or split.")
    rows = sample_ids(len(data), args.num_images, args.seed)
    reader = LabelledImages(data, model.processor, normalize=False, needs_labels=False)
    images = [reader.pixels(reader.dataset[row][reader.image_column], row).clamp(0, 1) for row in rows]
    prompt = args.prompt or ("describe it" if args.eval_set is None else "Describe the image.")
    return rows, torch.stack(images).to(model.model.device), make_tasks(args, model, prompt, rows, captions, asked)


def emoji_set(args: argparse.Namespace, processor: Any):
    """The emoji, their captions by row, and questions with answers by row, for two tasks."""
    sys.path.insert(0, str(EMOJI))
    import questions

    data = questions.load_rows(args.split)
    asked = {text: lambda row, text=text: (text, [data[row][text]]) for text in (questions.NAME, questions.GROUP)}
    return data, lambda row: [data[row][questions.DESCRIBE]], asked


def user_set(args: argparse.Namespace, processor: Any):
    """The set that the command line names, likewise; of what it names no column of there is no task."""
    from hf_pmgaft.data import column_names, load_images, parse_set
    from hf_pmgaft.data.captions import Captions

    data = load_images(*parse_set(args.eval_set))
    columns, features = column_names(data), data.features
    captions, asked = None, {}
    if "caption" in args.tasks:
        captions = Captions(args.caption_column or "auto", columns, features, processor)
    if "vqa" in args.tasks:
        if not args.question_column or not args.answer_column:
            raise ValueError(
                "You passed the task vqa without --question_column and --answer_column, so there is nothing to ask. "
                f"Pass both, of {columns}, or name other tasks with --tasks."
            )
        read = Captions(args.question_column, columns, features, processor)
        answers = Captions(args.answer_column, columns, features, processor)
        asked["vqa"] = lambda row: (read.texts(data[row], row)[0], answers.texts(data[row], row))
    return data, captions and (lambda row: captions.texts(data[row], row)), asked


def make_tasks(args, model: VisionLanguageModel, prompt: str, rows: Sequence[int], captions, asked) -> list[Task]:
    """The tasks in order, targets checked."""
    from hf_pmgaft.downstream.llava import caption_score, contains, vqa_accuracy

    tasks, count = [], len(rows)
    for target in read_targets(args) if "targeted" in args.tasks else ():
        model.check_target(target, prompt, args.max_new_tokens)

        def silent(text: str, answers: Sequence[str]) -> float:
            return float(not contains(text, answers[0]))

        tasks.append(Task(f"target {target!r}", "success", [prompt] * count, [[target]] * count, silent, True))
    if "caption" in args.tasks:
        tasks.append(Task("caption", "chrf", [prompt] * count, [captions(row) for row in rows], caption_score))
    for name, read in asked.items() if "vqa" in args.tasks else ():
        questions, answers = zip(*map(read, rows), strict=True)
        tasks.append(Task(name, "vqa_accuracy", list(questions), list(answers), vqa_accuracy))
    for task in tasks:
        task.score("a", ["a"])  # which says what is not installed
        for question in dict.fromkeys(task.questions):
            model.check_room(question, args.max_new_tokens)
    return tasks


def read_targets(args: argparse.Namespace) -> list[str]:
    """The strings to be written."""
    if args.targets is None and args.eval_set is None:
        return list(EMOJI_TARGETS)
    if args.targets is None:
        raise ValueError("You passed no targets for the targeted attack. Pass --targets, or other --tasks.")
    if len(args.targets) == 1 and args.targets[0].endswith(".json"):
        listed = json.loads(Path(args.targets[0]).read_text(encoding="utf-8"))
        if not isinstance(listed, list) or not all(isinstance(target, str) for target in listed) or not listed:
            raise ValueError(f'{args.targets[0]} holds no list of targets. Write it as ["one text", "another"].')
        return list(dict.fromkeys(listed))
    return list(dict.fromkeys(args.targets))


def describe(args, model: VisionLanguageModel, rows: Sequence[int], images: torch.Tensor, tasks: Sequence[Task]):
    """All that the figures depend on but the weights."""
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
        "verdict": VERDICT,
        "decoding": f"greedy, at most {args.max_new_tokens} tokens",
        "tasks": {
            task.name: {
                "figure": task.figure,
                "prompts": sorted({model.prompt(question) for question in task.questions})[:10],
                "answers": digest(json.dumps([task.questions, task.answers]).encode()),
            }
            for task in tasks
        },
        "images": {
            "set": args.eval_set or f"emoji, {args.split}",
            "rows": list(rows),
            "attacked_at": model.image_size,
            "pixels": digest(images.cpu().numpy().tobytes()),
        },
        "seed": args.seed,
        "dtype": "float32",
        "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("hf_pmgaft", "torch", "transformers", "pillow")},
        },
    }


def digest(content: bytes) -> str:
    """A short hash, by which contents are told apart."""
    return hashlib.sha256(content).hexdigest()[:12]


def show(args, protocol: Mapping[str, Any], tasks: Sequence[Task], results: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table, and writes the report."""
    radii = [CLEAN, *protocol["eps"]]
    table = [["task", "figure in %", "tower", *radii]]
    for task in tasks:
        for name, of_tasks in results.items():
            cells = []
            for radius in radii:
                found = of_tasks[task.name][radius]
                low, high = found["interval_95"]
                cells.append(f"{100 * found[task.figure]:.1f} ({100 * low:.1f} to {100 * high:.1f})")
            table.append([task.name, task.figure, name, *cells])
    print(render(table, args.format))
    code = digest(json.dumps(protocol, sort_keys=True).encode())
    print(f"\nPGD-{args.num_steps} in L-inf, {len(protocol['images']['rows'])} images; {VERDICT}. Protocol {code}.")
    for task in tasks:
        already = {name: of[task.name][CLEAN]["success"] for name, of in results.items() if task.targeted}
        for name, share in already.items():
            if share:
                print(f"WARNING: {name} writes {task.name} unprompted about {share:.0%} of the clean images.")
    if args.output_file:
        report = {"protocol": protocol, "protocol_hash": code, "model": args.model, "towers": results}
        part = Path(f"{args.output_file}.part")
        part.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(args.output_file)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError, ImportError) as error:  # what was passed cannot work, and it says why
        sys.exit(f"error: {error}")
