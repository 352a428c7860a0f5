"""Measures the clean and robust zero-shot accuracy of any CLIP checkpoint on any labelled image sets, or its recall on
any image-caption sets.

    pmgaft evaluate --model outputs/clip-pmgaft-emoji --eps 4/255 8/255
    pmgaft evaluate --model outputs/clip-pmgaft-emoji --attacks autoattack --output_file aa.json
    pmgaft evaluate --model openai/clip-vit-base-patch32 --suite paper16 --limit 1000 --eps 1/255 \\
        --attacks autoattack,version=fast --verdict_file verdicts.jsonl
    pmgaft evaluate --caption_column label,tags --num_steps 20
    pmgaft evaluate --model outputs/clip-pmgaft-emoji --defence random_noise,eps=4/255 --attacks pgd,num_steps=20
    pmgaft evaluate --attacks pgd,loss=ce pgd,loss=ce,source=outputs/clip-pmgaft-emoji
    pmgaft evaluate --model outputs/clip-pmgaft-emoji --html report.html

An attack is a name and its options: pgd,num_steps=100,loss=ce,restarts=5 or fgsm, cw, apgd, apgd_t, fab, fab_t,
square, autoattack,version=standard, patch,size=16, corruption,kind=jpeg,severity=3, typographic,height=0.2,
universal,file=FILE. Radii and norm come from --eps and --norm unless it names its own. The first attack at the first
radius is the headline; others are reported beside it.

Without --eval_sets or --suite it uses the eight embedded groups of emoji, in a drawing style that no training saw.
With --caption_column the images of a set and their captions are retrieved by each other (recall at 1, 5 and 10, under
fgsm, pgd or corruption); with --target images are pulled to a caption. With --defence each attack is three: one that
does not know the defence, one through it and one past its gradient; per image the worst of them counts. An attack with
source=MODEL makes its images on that model alone, and the one under test judges them. With --verdict_file, a run that
was killed goes on where it was. Several processes, as `accelerate launch -m hf_pmgaft.cli.evaluate` starts them, share
the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from ..attacks import CORRUPTIONS, SEVERITIES, WITHOUT_BALL, parse_radius
from ..attacks.lettering import least_height
from ..attacks.options import parse_options
from ..compilation import COMPILE_MODES
from ..embedded import emoji_folder
from ..evaluation.attack_precision import PRECISIONS
from ..evaluation.defended import DEFAULT_EOT, Defended
from ..evaluation.draw_rules import Majority, Prediction
from ..evaluation.report import RobustnessReport
from ..evaluation.tables import FORMATS, render
from ..evaluation.verdicts import VERDICTS
from ..files import check_output_file, check_output_folder
from ..fingerprints import fingerprint
from ..models.record import model_record
from ..models.resolution import at_resolution
from ..registry import check_count
from ..tuning.saved import load_pair
from ..zero_shot.readout_spec import ReadoutSpec
from .card_options import check_card_options, put_into_card
from .compare import compare, draw_reports
from .errors import flags_named, going_on_from, one_line_errors, one_line_stops
from .parser import add_model_options, make_parser
from .set_options import FLAGS, HELP, add_column_options, add_mask_options, mask_options_of, options_of
from .suite_options import HELP as SUITE_HELP
from .suite_options import end_with_missing, load_suite_sets

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from ..data.evaluation_sets import EvaluationImages, RetrievalDataset

GROUPS = ("animals", "smileys", "food", "travel", "activities", "objects", "symbols", "flags")
HEADS = ("linear_probe", "nearest_class_mean")
UNSEEN = ("pixels", "words")
PAGE_EXAMPLES = 24  # images on the page of a report
WORD_HEIGHT = 0.2  # of the image, unless some names have no place in that
# RobustBench's radii for images of 32 pixels; the L2 one grows with the edge, the L1 one with the area.
L2_EPS, L1_EPS = 0.5, 12.0


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("evaluate", __doc__, script)
    add_model_options(parser, "the embedded one if absent")

    sets = parser.add_argument_group("images")
    sets.add_argument(
        "--eval_sets",
        nargs="+",
        help="Sets, each known (dtd, ...) or NAME[:config][@split][#revision]; the emoji groups if absent.",
    )
    add_column_options(sets)
    add_mask_options(sets)
    sets.add_argument("--readout", default="sclip", help=HELP["readout"])
    sets.add_argument("--suite", help=SUITE_HELP["suite"])
    sets.add_argument("--suite_sets", nargs="+", help=SUITE_HELP["suite_sets"])
    sets.add_argument("--data_root", help=SUITE_HELP["data_root"])
    sets.add_argument("--limit", type=int, help=SUITE_HELP["limit"])
    sets.add_argument("--head", choices=HEADS, help="Classify by labelled images instead of class names.")
    sets.add_argument("--support_sets", nargs="+", help="What --head is fitted on: for each of --eval_sets one set.")
    sets.add_argument("--image_size", type=int, help="Another resolution, position embeddings interpolated once.")
    sets.add_argument("--split", default="test", help="Split of the emoji groups: test or validation.")
    sets.add_argument("--prompt_template", help="How class names become prompts; captions stay as they are if absent.")
    sets.add_argument("--caption_column", help="Retrieve by captions: NAME[,NAME], or auto for the usual names.")
    sets.add_argument("--target", help="Pull images to this caption, or, with drawn, each to one that is not its own.")
    sets.add_argument("--max_samples", type=int, help="Images per set, chosen by the seed; all if absent.")
    sets.add_argument("--sample_ids", help="JSON file with the rows to evaluate, by set.")
    sets.add_argument(
        "--num_workers", type=int, default=0, help="Processes that read images ahead; 0 reads in this one."
    )
    sets.add_argument("--check_data", action="store_true", help="Read every row first and name those that are broken.")

    threat = parser.add_argument_group("threat")
    threat.add_argument("--norm", default="linf", choices=["linf", "l2", "l1"], help="Norm of the ball.")
    threat.add_argument("--eps", nargs="+", default=["4/255"], help="Radii in the scale of images in [0,1].")
    threat.add_argument("--attacks", nargs="+", help="Attacks, each NAME[,option=value...]; PGD if absent.")
    threat.add_argument("--num_steps", type=int, default=50, help="Steps of PGD without --attacks.")
    threat.add_argument(
        "--loss", help="Loss of PGD without --attacks: ce, margin or dlr; margin if absent, of captions margin and ce."
    )
    threat.add_argument("--restarts", type=int, default=1, help="Random restarts of PGD without --attacks.")
    threat.add_argument(
        "--unseen",
        nargs="?",
        const="pixels",
        choices=UNSEEN,
        help="Beside the headline: APGD in L2 and L1, twice the radius, a patch, and corruptions at five severities. "
        "With words, also names of wrong classes, and random letters in their place, written on the images.",
    )

    threat.add_argument(
        "--attack_precision",
        default="fp32",
        choices=PRECISIONS,
        help="What attacks take gradients in; verdicts are always in fp32. bf16 is a little weaker.",
    )

    threat.add_argument(
        "--defence", help="Defend the model at test time, by NAME[,option=value...] such as random_noise,eps=4/255."
    )
    threat.add_argument(
        "--eot", type=int, help=f"Draws of a random defence in a step of an attack; {DEFAULT_EOT} if absent."
    )

    judge = parser.add_argument_group("verdict")
    judge.add_argument(
        "--verdict",
        choices=VERDICTS,
        help="What counts as fooled; any_iterate if absent. Random defences have majority, and smoothing prediction.",
    )
    judge.add_argument(
        "--draws",
        type=int,
        help=f"By how many draws a random defence is judged; if absent {Majority.default_draws}, of smoothing "
        f"{Prediction.default_draws}.",
    )
    judge.add_argument("--eight_bit", action="store_true", help="Judge again after rounding to 8 bits.")
    judge.add_argument("--batch_size", type=int, default=64, help="Images at once.")
    judge.add_argument(
        "--compile",
        nargs="?",
        const="default",
        choices=COMPILE_MODES,
        help="Compile the image encoder, in a mode of torch.compile. The first passes then take minutes.",
    )
    judge.add_argument("--seed", type=int, default=0, help="Of noise and choice of images; a card names its own.")

    out = parser.add_argument_group("output")
    out.add_argument("--format", default="text", choices=FORMATS, help="How tables are printed.")
    out.add_argument("--output_file", help="JSON file for the whole report, or the comparison.")
    out.add_argument("--verdict_file", help="Verdicts are appended to it as they come, to go on from.")
    out.add_argument(
        "--plots", help="Folder for pictures: bars per set, accuracy against radius, clean against robust."
    )
    out.add_argument("--html", help="HTML file for the report as a page to look at, with pictures of attacked images.")
    out.add_argument("--update_card", metavar="MODEL", help="Put the figures into the card of this folder or Hub id.")
    out.add_argument("--push", action="store_true", help="With --update_card, commit to the model on the Hub.")
    out.add_argument(
        "--report", help="With --update_card or --html, a report that is there already, in place of evaluating."
    )
    out.add_argument(
        "--benchmarks", help="With --update_card, YAML: {SET: {FIGURE: [DATASET, TASK]}} for .eval_results."
    )
    out.add_argument("--compare", nargs=2, metavar="REPORT", help="Compare two reports instead of evaluating.")
    out.add_argument("--ignore", nargs="+", default=[], help="Protocol keys that may differ, such as versions.torch.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Evaluates what a command line asks for, prints tables and writes the files that it names."""
    args = parse(argv, script)
    for option in ("limit", "image_size", "max_samples", "batch_size"):
        if getattr(args, option) is not None:
            check_count(f"--{option}", getattr(args, option))
    check_count("--num_workers", args.num_workers, least=0)
    ReadoutSpec.parse(args.readout)  # says what is wrong with it
    Defended.of(args.defence, eot=args.eot, draws=args.draws)
    check_output_file("--output_file", args.output_file)
    check_output_file("--verdict_file", args.verdict_file)
    check_output_file("--html", args.html)
    check_output_folder("--plots", args.plots)
    if args.compare:
        compare(*args.compare, args.ignore, args.format, args.output_file, args.plots, args.html)
        return
    check_card_options(args)
    if args.report:
        show_again(RobustnessReport.load(args.report), args)
        return

    from ..evaluation.evaluate import evaluate_robustness
    from ..evaluation.heads import make_head
    from ..hub.card_update import ExistingCard

    # Model
    state = PartialState()
    name = args.model or args.update_card or str(emoji_folder() / "model")
    model, processor = load_pair(name, args.processor, args.base, revision=args.revision)
    provenance = {"model": model_record(model, name)}
    if args.image_size is not None:
        model, processor = at_resolution(model, processor, args.image_size)

    if args.update_card:  # hours before its figures are there
        ExistingCard.read(args.update_card).check_weights({"fingerprint": fingerprint(model)})

    # Images, and what they are classified by
    sets, of_suite = load_sets(args, processor)
    provenance.update(of_suite)
    support = [
        load_labelled(text, args, processor, prompt_templates="{}", part="train_split")
        for text in args.support_sets or []
    ]
    head = make_head(args.head, support, sets, args.num_workers)
    if args.check_data:
        for data in (*sets, *support):
            data.check()

    with one_line_stops(lambda: going_on_from(args.verdict_file)):
        report = evaluate_robustness(
            model.to(state.device),
            processor,
            sets,
            attacks_of(args, sets[0].shape[-1], height_of_words(sets) if args.unseen == "words" else None),
            head=head,
            verdict=args.verdict,
            eight_bit=args.eight_bit,
            batch_size=args.batch_size,
            max_samples=args.max_samples,
            seed=args.seed,
            verdict_file=args.verdict_file,
            num_workers=args.num_workers,
            attack_precision=args.attack_precision,
            compile=args.compile,
            readout=args.readout,
            defence=args.defence,
            eot=args.eot,
            draws=args.draws,
            examples=PAGE_EXAMPLES if args.html else 0,
        )
    report.provenance.update(provenance)
    if state.is_main_process:
        show(report, args, Path(name).name)
        if args.update_card:
            put_into_card(report, args)
    end_with_missing(provenance)


# ---- Images ----


def load_sets(args: argparse.Namespace, processor: Any) -> tuple[list[EvaluationImages], dict[str, Any]]:
    """The sets that a command line names, and what reports record of their suite.

    Raises:
        ValueError: for options that have no effect together, or that leave the sets as they are.
    """
    from ..data.evaluation_sets import read_sample_ids
    from ..suites.sets import set_name

    _check_idle(args)
    if args.suite:
        return load_suite_sets(args, processor)

    rows = read_sample_ids(args.sample_ids) if args.sample_ids else {}
    texts = args.eval_sets or [f"{emoji_folder() / 'data'}:{group}@{args.split}" for group in GROUPS]
    if args.caption_column is None:
        # Of sets that a suite does not know; the embedded ones are emoji.
        templates = args.prompt_template or (None if args.eval_sets else "an emoji of {}")
        sets = [
            load_labelled(text, args, processor, prompt_templates=templates, sample_ids=rows.get(set_name(text)))
            for text in texts
        ]
    else:
        sets = [load_captioned(text, args, processor, rows.get(set_name(text))) for text in texts]

    if args.sample_ids and not {data.name for data in sets} & set(rows):
        raise ValueError(
            f"You passed --sample_ids {args.sample_ids}, which holds rows of {sorted(rows)} and none of the sets "
            f"{sorted(data.name for data in sets)}, which would be evaluated whole. Pass the file of these sets."
        )
    return sets, {}


def load_labelled(text: str, args: argparse.Namespace, processor: Any, **options: Any) -> EvaluationImages:
    """A set of labelled images or of images with masks, with what the command line says of its names and columns."""
    from ..suites.sets import load_set

    options.update(options_of(text, args, named_sets(args), args.head))
    options.update(mask_options_of(text, args, named_sets(args)))
    with flags_named(text, FLAGS):
        return load_set(text, processor, **options)


def load_captioned(
    text: str, args: argparse.Namespace, processor: Any, sample_ids: Sequence[int] | None
) -> RetrievalDataset:
    """A set of images with captions."""
    from ..suites.sets import load_captioned_set

    with flags_named(text, {"image_column": FLAGS["image_column"], "caption_column": "--caption_column"}):
        return load_captioned_set(
            text,
            processor,
            args.caption_column,
            prompt_templates=args.prompt_template or "{}",
            sample_ids=sample_ids,
            target=args.target,
            image_column=options_of(text, args, named_sets(args))["image_column"],
        )


def named_sets(args: argparse.Namespace) -> list[str]:
    """All sets that the command line names."""
    return [*(args.eval_sets or []), *(args.support_sets or [])]


def _check_idle(args: argparse.Namespace) -> None:
    """Refuses options that would be ignored."""
    of_suite = {"--suite_sets": args.suite_sets, "--data_root": args.data_root, "--limit": args.limit}
    of_sets = {
        "--eval_sets": args.eval_sets,
        "--eval_class_names": args.eval_class_names,
        "--eval_image_column": args.eval_image_column,
        "--eval_label_column": args.eval_label_column,
        "--prompt_template": args.prompt_template,
        "--sample_ids": args.sample_ids,
        "--head": args.head,
        "--caption_column": args.caption_column,
        "--mask_column": args.mask_column,
        "--ignore_index": args.ignore_index,
        "--reduce_zero_label": args.reduce_zero_label,
        "--background_threshold": args.background_threshold,
        "--short_edge": args.short_edge,
    }
    idle = [flag for flag, value in (of_sets if args.suite else of_suite).items() if value is not None]
    if idle:
        raise ValueError(
            f"You passed {', '.join(idle)} {'with' if args.suite else 'without'} --suite, where it has no effect. "
            "Leave it out; --help says what single sets and what suites take."
        )
    if args.target is not None and args.caption_column is None:
        raise ValueError(
            f"You passed --target {args.target!r} without --caption_column, where it has no effect. Pass both."
        )


# ---- Attacks ----


def attacks_of(
    args: argparse.Namespace, edge: int, of_words: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """The attacks that a command line names, on images with so many pixels along an edge.

    Args:
        of_words (`dict`, *optional*): Options of words that are written on images, see [`height_of_words`].
    """
    if args.attacks:
        named = [parse_options(text) for text in args.attacks]
    else:
        # Beyond the first rank the margin alone is too kind: it moves the best two captions.
        losses = ["margin", "ce"] if args.caption_column else ["margin"]
        losses = [args.loss] if args.loss else losses
        pgd = {"attack": "pgd", "num_steps": args.num_steps, "restarts": args.restarts}
        named = [{**pgd, "loss": loss} for loss in losses]

    attacks = []
    for eps in args.eps:
        for attack in named:
            has_ball = attack["attack"] not in WITHOUT_BALL
            ball = {"eps": eps, "norm": args.norm} if has_ball else {}
            attacks.append({**ball, **attack})
    if args.unseen:
        attacks += unseen_attacks(args.eps[0], args.norm, edge)
    if args.unseen == "words":
        attacks += [
            {"attack": "typographic", "letters": letters, **(of_words or {})} for letters in ("word", "random")
        ]
    return attacks


def height_of_words(sets: Sequence[EvaluationImages]) -> dict[str, float]:
    """The height of words that are written on all sets where 20 % is too little for some names; else nothing.

    Where no height is enough, the check of the attack says so.
    """
    from ..data.evaluation_sets import ZeroShotDataset

    classified = [data for data in sets if isinstance(data, ZeroShotDataset)]
    heights = [least_height(data.class_names, data.shape[-2:], least=WORD_HEIGHT) for data in classified]
    needed = [height for height in heights if height is not None]
    highest = max(needed, default=WORD_HEIGHT)
    return {} if highest == WORD_HEIGHT else {"height": highest}


def unseen_attacks(eps: str, norm: str, edge: int) -> list[dict[str, Any]]:
    """Threats that training in a ball did not see, in a few attacks each.

    They are twice the radius, balls in the other norms, a square patch, and every corruption at every severity.

    Args:
        eps (`str`): Radius of training, such as `"4/255"`.
        norm (`str`): Norm of training.
        edge (`int`): Pixels along an edge of the images.
    """
    parse_radius(eps, norm)  # says what is wrong with it
    numerator, slash, denominator = eps.partition("/")
    double = {"eps": f"{2 * float(numerator):g}{slash}{denominator}", "norm": norm}
    if norm == "l1":  # which PGD does not know
        attacks = [{"attack": "apgd", **double, "loss": loss} for loss in ("ce", "margin")]
    else:
        attacks = [{"attack": "pgd", **double, "num_steps": 50, "loss": "margin"}]

    radii = {"l2": round(L2_EPS * edge / 32, 3), "l1": round(L1_EPS * (edge / 32) ** 2, 3)}
    for other, radius in radii.items():
        if other != norm:
            attacks += [{"attack": "apgd", "eps": radius, "norm": other, "loss": loss} for loss in ("ce", "margin")]

    attacks.append({"attack": "patch", "size": max(1, edge // 5)})
    attacks += [
        {"attack": "corruption", "kind": kind, "severity": severity} for kind in CORRUPTIONS for severity in SEVERITIES
    ]
    return attacks


# ---- Output ----


def show(report: RobustnessReport, args: argparse.Namespace, model: str) -> None:
    """Prints a report, and writes what a command line asks for."""
    for rows in (
        report.rows(),
        report.attack_rows(),
        report.corruption_rows(),
        report.written_rows(),
        *report.class_rows(),
    ):
        if len(rows) > 1:
            print(render(rows, args.format), end="\n\n")
    print(f"Protocol {report.protocol_hash}; {report.verdict}; seed {report.protocol['seed']}.")
    for text in (*report.defence, *report.transfer, *report.retrieval, *report.segmentation):
        print(text)
    print("Robust figures are upper bounds until a stronger attack fails to lower them.")
    for flag in report.flags:
        print(f"WARNING ({flag['flag']}, {flag['set']}): {flag['message']}.")

    if args.output_file:
        report.save(args.output_file)
    if args.plots:
        draw_reports({model: report}, Path(args.plots))
    if args.html:
        write_page(report, args.html, model)


def show_again(report: RobustnessReport, args: argparse.Namespace) -> None:
    """Puts a report that was there already where a command line asks for it."""
    if args.html:
        write_page(report, args.html, report.provenance.get("model", {}).get("name", Path(args.report).stem))
    if args.update_card:
        put_into_card(report, args)


def write_page(report: RobustnessReport, file: str, model: str) -> None:
    """Writes the page of a report, and says where it is."""
    from ..pages import save_report_page

    save_report_page(report, file, model)
    print(f"The page is in {file}.")


if __name__ == "__main__":
    main()
