"""Makes images on each of several CLIPs, once, and says how each of them fares on all.

    pmgaft transfer --models examples/emoji/model outputs/clip-pmgaft-emoji
    pmgaft transfer --models openai/clip-vit-base-patch32 openai/clip-vit-base-patch16 mine --eval_sets dtd \\
        --max_samples 500 --eps 4/255 --attacks pgd,num_steps=20,loss=ce --verdict_file found.jsonl --plots pictures

A row of the table is the model that images are made on, a column the one that judges them; the diagonal is the
white-box attack to its end. Images are at the size of the first model, and others resize them in the graph.

Without --eval_sets it takes the eight embedded groups of emoji. With --verdict_file, a run that was killed goes on
where it was. Several processes, as `accelerate launch -m hf_pmgaft.cli.transfer` starts them, share the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..attacks import WITHOUT_BALL
from ..attacks.options import parse_options
from ..embedded import emoji_folder
from ..evaluation.tables import FORMATS, render
from ..evaluation.transfer_report import TransferReport
from ..files import check_output_file, check_output_folder
from ..models.record import model_record
from ..registry import check_count
from ..short_names import short_names
from ..tuning.saved import load_one_of_several
from .errors import flags_named, going_on_from, one_line_errors, one_line_stops
from .evaluate import GROUPS
from .parser import add_base_options, make_parser
from .set_options import FLAGS, add_column_options, options_of


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("transfer", __doc__, script)
    parser.add_argument(
        "--models", nargs="+", required=True, help="Hub ids, folders or files of weights, two or more."
    )
    add_base_options(parser, "--models")

    sets = parser.add_argument_group("images")
    sets.add_argument(
        "--eval_sets", nargs="+", help="Sets, each known (dtd, ...) or NAME[:config][@split][#revision]."
    )
    add_column_options(sets)
    sets.add_argument("--prompt_template", help="How class names become prompts.")
    sets.add_argument("--max_samples", type=int, help="Images per set, chosen by the seed; all if absent.")
    sets.add_argument("--num_workers", type=int, default=0, help="Processes that read images ahead.")

    threat = parser.add_argument_group("threat")
    threat.add_argument("--norm", default="linf", choices=["linf", "l2", "l1"], help="Norm of the ball.")
    threat.add_argument("--eps", nargs="+", default=["4/255"], help="Radii, a matrix for each.")
    threat.add_argument(
        "--attacks",
        nargs="+",
        default=["pgd,num_steps=20,loss=ce"],
        help="Attacks, each NAME[,option=value...]; of several the worst counts.",
    )

    out = parser.add_argument_group("output")
    out.add_argument("--batch_size", type=int, default=64, help="Images at once.")
    out.add_argument("--seed", type=int, default=0, help="Of noise and choice of images.")
    out.add_argument("--format", default="text", choices=FORMATS, help="How tables are printed.")
    out.add_argument("--output_file", help="JSON file for the whole report.")
    out.add_argument("--verdict_file", help="Verdicts are appended to it as they come, to go on from.")
    out.add_argument("--plots", help="Folder for the picture of the matrix.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Measures what a command line asks for, prints tables and writes the files that it names."""
    args = parse(argv, script)
    if args.max_samples is not None:
        check_count("--max_samples", args.max_samples)
    names = short_names("model", args.models)
    if len(names) < 2:
        raise ValueError("You passed one of --models, between which nothing transfers. Pass two or more.")
    check_output_file("--output_file", args.output_file)
    check_output_file("--verdict_file", args.verdict_file)
    check_output_folder("--plots", args.plots)
    from ..evaluation.transfer_matrix import transfer_matrix
    from ..suites.sets import load_set

    # Models
    state = PartialState()
    models, records = {}, {}
    for name, place in zip(names, args.models, strict=True):
        model, processor = load_one_of_several(place, args.processor, args.base)
        models[name] = (model.to(state.device), processor)
        records[name] = model_record(model, place)

    # Images
    texts = args.eval_sets or [f"{emoji_folder() / 'data'}:{group}@test" for group in GROUPS]
    template = args.prompt_template or (None if args.eval_sets else "an emoji of {}")
    _, processor = models[names[0]]
    sets = []
    for text in texts:
        with flags_named(text, FLAGS):
            sets.append(load_set(text, processor, prompt_templates=template, **options_of(text, args, texts)))

    with one_line_stops(lambda: going_on_from(args.verdict_file)):
        report = transfer_matrix(
            models,
            sets,
            attacks_at_radii(args),
            batch_size=args.batch_size,
            max_samples=args.max_samples,
            seed=args.seed,
            verdict_file=args.verdict_file,
            num_workers=args.num_workers,
        )
    report.provenance["models"] = records
    if state.is_main_process:
        show(report, args)


def attacks_at_radii(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The attacks that a command line names, at each of its radii."""
    attacks = []
    for eps in args.eps:
        for attack in map(parse_options, args.attacks):
            ball = {} if attack["attack"] in WITHOUT_BALL else {"eps": eps, "norm": args.norm}
            attacks.append({**ball, **attack})
    return attacks


def show(report: TransferReport, args: argparse.Namespace) -> None:
    """Prints a report, and writes what a command line asks for."""
    for threat in report.threats:
        print(render(report.rows(threat), args.format), end="\n\n")
    print(f"Protocol {report.protocol_hash}; seed {report.protocol['seed']}.")
    for text in report.statement:
        print(text)

    if args.output_file:
        report.save(args.output_file)
    if args.plots:
        from ..plots import transfer_map

        transfer_map(report, Path(args.plots) / "transfer.png")


if __name__ == "__main__":
    main()
