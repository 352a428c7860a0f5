"""Attacks what a vision-language model writes, before and after another vision tower is put in.

    pmgaft attack-vlm --towers outputs/clip-pmgaft-emoji
    pmgaft attack-vlm --towers outputs/clip-pmgaft-emoji --num_images 8 --gallery llava.png --html llava.html
    pmgaft attack-vlm --model llava-hf/llava-1.5-7b-hf --towers user/robust-clip-vit-large-patch14-336 \\
        --eval_set user/coco-captions@validation --caption_column captions --prompt "Describe the image briefly." \\
        --tasks targeted caption --targets "Visit example.com now" --eps 2/255 4/255 --num_images 500 \\
        --verdict_file texts.jsonl

Tasks, by PGD on the cross-entropy of an answer under the language model (float32, L-inf):
  targeted   stealth: each image is perturbed until the model writes a string of the attacker's choosing
  caption    each image is perturbed against its captions; scored by chrF++, or with --caption_score cider by CIDEr-D
  vqa        each image is perturbed against the answers to its question; scored by VQA accuracy
  pope       is something in the image? Scored by F1 of yes, for each category
  scienceqa  questions with choices, of which the likeliest is taken; scored by accuracy

--protocol robust_clip follows the Robust CLIP paper (arXiv 2402.12336): 500 images, 2/255 and 4/255, CIDEr-D, VQA
accuracy, the ensemble attack (--attack ensemble), targets on 25 images by 10,000 steps; POPE and ScienceQA are not
attacked.

A tower of --towers, tuned from the CLIP or SigLIP that the model was built on, takes the place of the model's own;
language model and projector stay as they are. Judged is the adversarial image as an 8-bit file holds it, and per image
the worst of the clean image and all radii so far.

Without --model and --eval_set it asks the tiny LLaVA of the package about emoji in a drawing style that no training
saw. With --verdict_file, a run that was killed goes on where it was, and towers may be added later. Several processes
(`accelerate launch`, `torchrun`) share the images.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ..distributed import process_share
from ..downstream.vqa import RULES
from ..evaluation.company import Company
from ..evaluation.tables import FORMATS
from ..evaluation.verdicts import Verdicts
from ..files import check_output_file
from ..fingerprints import fingerprint
from ..tuning.saved import load_model, needs_base
from .attack_vlm_checks import OWN, check_card, check_idle, check_numbers, json_object, read_targets, tower_names
from .attack_vlm_protocol import ATTACKS, PROTOCOLS, TASKS, settle
from .attack_vlm_report import (
    card_figures,
    card_report,
    default_model,
    describe,
    in_words,
    notes,
    show,
    without_places,
)
from .attack_vlm_tasks import load_tasks
from .errors import going_on_from, one_line_errors, one_line_stops
from .parser import make_parser

if TYPE_CHECKING:  # what brings in transformers' models comes where it is used, so that --help is quick
    import torch
    from torch import nn

    from ..downstream.answer_attacks import AnswerAttack
    from ..downstream.answer_evaluation import AnswerEvaluation
    from ..downstream.tasks import AnswerTask
    from ..downstream.vlm import VisionLanguageModel


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("attack-vlm", __doc__, script)
    models = parser.add_argument_group("models")
    models.add_argument("--model", help="Hub id or folder of a vision-language model; the embedded LLaVA if absent.")
    models.add_argument(
        "--image_options",
        type=json_object,
        help="Options of the model's image processor as JSON, such as '{\"crop_to_patches\": false}' of InternVL.",
    )
    models.add_argument(
        "--towers", nargs="+", default=[], help="Hub ids, folders or files of CLIPs to put in, one by one."
    )
    models.add_argument("--base", help="What those of --towers were trained from that hold weights alone.")

    asked = parser.add_argument_group("images and questions")
    asked.add_argument("--protocol", choices=list(PROTOCOLS), help="A paper's own settings; see above.")
    asked.add_argument(
        "--tasks", nargs="+", choices=TASKS, help="What to attack; targeted, caption and vqa if absent."
    )
    asked.add_argument("--eval_set", help="NAME[:config][@split]; the emoji if absent.")
    asked.add_argument("--split", default="test", choices=["test", "validation"], help="Drawing style of the emoji.")
    asked.add_argument("--caption_column", help="Captions of an image: a text, a list of texts, or COLUMN.FIELD.")
    asked.add_argument("--question_column", help="A question about the image.")
    asked.add_argument("--answer_column", help="Its right answers, like captions; of scienceqa the choice's number.")
    asked.add_argument("--choice_column", help="What there is to choose from, for scienceqa.")
    asked.add_argument("--category_column", help="The category of a question of pope; all are one if absent.")
    asked.add_argument("--object_column", help="What is in the image, to make pope's questions of.")
    asked.add_argument("--prompt", help="What asks for a caption; with the image's token it is the whole prompt.")
    asked.add_argument("--targets", nargs="+", help="Strings to make the model write, or one JSON file with a list.")
    asked.add_argument(
        "--check_data", action="store_true", help="Read every row first and name those that are broken."
    )
    asked.add_argument("--num_images", type=int, help="Images, drawn from the set by the seed; 50 if absent.")
    asked.add_argument("--target_images", type=int, help="How many of them the targeted attack takes; all if absent.")

    scores = parser.add_argument_group("scores")
    scores.add_argument("--caption_score", choices=["chrf", "cider"], help="chrF++ (the default), or CIDEr-D.")
    scores.add_argument("--cider_threshold", type=float, help="CIDEr-D x 100 below which an image is done; 0.")
    scores.add_argument("--vqa_rule", choices=RULES, help="When answers are normalised; always if absent.")
    scores.add_argument(
        "--choice_rule", choices=["likelihood", "text"], help="How scienceqa is answered; by likelihood if absent."
    )

    threat = parser.add_argument_group("threat")
    threat.add_argument("--eps", nargs="+", help="Radii in the scale of images in [0,1]; 4/255 8/255 if absent.")
    threat.add_argument(
        "--attack", choices=ATTACKS, help="PGD (the default), many runs of APGD, or PGD on the tower alone."
    )
    threat.add_argument("--num_steps", type=int, help="Steps of a run; 50 if absent.")
    threat.add_argument("--target_steps", type=int, help="Of the ensemble towards a target; 10,000 if absent.")
    threat.add_argument("--restarts", type=int, help="Random starts of PGD, of which the highest loss counts; 1.")
    threat.add_argument("--momentum", type=float, help="Of PGD's step; 0 if absent.")
    threat.add_argument(
        "--max_new_tokens", type=int, help="Tokens that the model writes, by greedy search; 30 if absent."
    )
    threat.add_argument("--batch_size", type=int, default=32, help="Images at once.")
    threat.add_argument("--seed", type=int, help="Of the noise and the choice of images; 0 if absent.")

    out = parser.add_argument_group("output")
    out.add_argument("--format", default="text", choices=FORMATS, help="How the table is printed.")
    out.add_argument("--output_file", help="JSON file for figures, texts and protocol.")
    out.add_argument("--verdict_file", help="Texts are appended to it as they come, to go on from.")
    out.add_argument(
        "--gallery",
        help="PNG of the first four images under the first task's attack at the last radius, run once more for it.",
    )
    out.add_argument(
        "--html",
        help="HTML file for the report as a page to look at, with images as --gallery, up to 24 of them.",
    )
    out.add_argument("--update_card", metavar="TOWER", help="Put the figures into the card of one of --towers.")
    out.add_argument("--push", action="store_true", help="With --update_card, commit to the tower on the Hub.")
    return settle(parser.parse_args(argv))


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
    check_output_file("--html", args.html)
    check_card(args)
    from ..downstream.vlm import load_vlm
    from ..plots import answer_gallery

    # Model, images, tasks and towers
    model = load_vlm(args.model or default_model(), args.image_options)
    rows, images, tasks = load_tasks(args, model)
    towers = load_towers(args, names, model.model)

    # Texts and scores
    attack = make_attack(args)
    protocol = describe(args, model, rows, images, tasks, attack)
    rank, _ = process_share()
    verdicts = Verdicts(args.verdict_file, {"protocol": protocol, "model": fingerprint(model.model)}, rank)
    results, examples = {}, {}
    takes_examples = rank == 0 and bool(args.gallery or (args.html and tasks[0].attacked))
    with one_line_stops(lambda: going_on_from(args.verdict_file)), closing(verdicts), Company() as company:
        for name, evaluation in evaluations(args, model, rows, images, towers, attack, verdicts, company):
            results[name] = {task.name: evaluation.run(task) for task in tasks}
            if takes_examples:
                examples[name] = evaluation.examples(tasks[0])

    if rank == 0:
        report = show(args, protocol, tasks, results)
        if args.update_card is not None:
            name = names[args.towers.index(args.update_card)]
            put_into_card(args, card_report(report, name), tasks, fingerprint(towers[name]))
        if args.html:
            write_page(args, report, tasks, examples)
    if args.gallery and examples:
        radius = protocol["eps"][-1]
        title = f"{tasks[0].name}, radius {radius}: what is written about the clean and the attacked image"
        answer_gallery(examples, args.gallery, title)


def load_towers(args: argparse.Namespace, names: Sequence[str], llava: nn.Module) -> dict[str, nn.Module]:
    """The towers by name, the model's own first.

    Each is put in once, the own one last, so that one that does not fit shows at once. Without others none is put in.
    """
    from ..downstream.towers import swap_vision_tower, vision_tower
    from ..hub.card_update import ExistingCard

    if not args.towers:
        return {OWN: llava}
    towers = {OWN: copy.deepcopy(vision_tower(llava))}
    for name, folder in zip(names, args.towers, strict=True):
        towers[name] = load_model(folder, args.base if needs_base(folder) else None)
    if args.update_card is not None:  # hours before its figures are there
        ExistingCard.read(args.update_card)
    for tower in reversed(towers.values()):
        swap_vision_tower(llava, tower)
    return towers


def evaluations(
    args: argparse.Namespace,
    model: VisionLanguageModel,
    rows: Sequence[int],
    images: Sequence[torch.Tensor],
    towers: Mapping[str, nn.Module],
    attack: AnswerAttack,
    verdicts: Verdicts,
    company: Company,
) -> Iterator[tuple[str, AnswerEvaluation]]:
    """The evaluation through each tower, which is put in before."""
    from ..downstream.answer_evaluation import AnswerEvaluation
    from ..downstream.towers import swap_vision_tower

    for name, tower in towers.items():
        if len(towers) > 1:
            swap_vision_tower(model.model, tower)
        yield (
            name,
            AnswerEvaluation(
                model,
                rows,
                images,
                f"{name} {fingerprint(model.model)}",
                verdicts,
                args.eps,
                attack,
                batch_size=args.batch_size,
                company=company,
            ),
        )


def put_into_card(args: argparse.Namespace, report: dict, tasks: Sequence[AnswerTask], weights: str) -> None:
    """Updates the card that a command line names by a report about its tower, which has these weights."""
    from ..hub.card_update import update_card_text

    figures = card_figures(report, tasks)
    update_card_text(args.update_card, figures, report, fingerprint=weights, push=args.push)
    print(f"The card of {args.update_card} has the figures of protocol {report['protocol_hash']}.")


def write_page(args: argparse.Namespace, report: dict, tasks: Sequence[AnswerTask], examples: dict) -> None:
    """Writes the report as a page to look at."""
    from ..pages import save_answer_page

    of_figures = notes(tasks, report["towers"])
    save_answer_page(without_places(report), args.html, in_words(report["protocol"]), of_figures, examples)
    print(f"The page is in {args.html}.")


def make_attack(args: argparse.Namespace) -> AnswerAttack:
    """The attack that a command line asks for."""
    from ..downstream.answer_attacks import EncoderAttack, EnsembleAttack, PgdAttack

    if args.attack == "ensemble":
        return EnsembleAttack(args.num_steps, args.target_steps)
    if args.attack == "encoder":
        return EncoderAttack(args.num_steps, args.restarts, args.momentum, args.seed)
    return PgdAttack(args.num_steps, args.restarts, args.momentum, args.seed)


if __name__ == "__main__":
    main()
