"""Certifies how far a smoothed CLIP keeps its answers, and attacks the same smoothed model beside it.

    pmgaft certify --sigma 0.05 0.1 --draws 1000 --max_samples 50 --plots pictures
    pmgaft certify --model openai/clip-vit-base-patch32 --eval_sets dtd --max_samples 500 --sigma 0.25 0.5 \\
        --draws 100000 --verdict_file found.jsonl --output_file certificates.json
    pmgaft certify --eval_sets dtd --prompt_template "a photo of {} texture" "{}" --sigma 0.1 --attacks none

Attacks give an upper bound of robust accuracy. Under normal noise there is a lower one: if enough of --draws agree on
a class, no change of the pixels below a radius in L2 makes another one the most frequent (Cohen et al., 2019). An
image costs so many passes for each --sigma. Further templates and lists of names (--class_lists) are judged on the
same passes and cost next to nothing.

Without --eval_sets it takes the eight embedded groups of emoji. With --verdict_file, a run that was killed goes on
where it was. Several processes, as `accelerate launch -m hf_pmgaft.cli.certify` starts them, share the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from ..embedded import emoji_folder
from ..evaluation.certificate_report import CertificateReport
from ..evaluation.tables import FORMATS, render
from ..files import check_output_file, check_output_folder
from ..models.record import model_record
from ..prompts import names_from
from ..registry import check_count
from ..tuning.saved import load_pair
from .errors import flags_named, going_on_from, one_line_errors, one_line_stops
from .evaluate import GROUPS
from .parser import add_model_options, make_parser
from .set_options import FLAGS, add_column_options, options_of

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from ..data.evaluation_sets import ZeroShotDataset


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("certify", __doc__, script)
    add_model_options(parser, "the embedded one if absent")

    sets = parser.add_argument_group("images")
    sets.add_argument(
        "--eval_sets", nargs="+", help="Sets, each known (dtd, ...) or NAME[:config][@split][#revision]."
    )
    add_column_options(sets)
    sets.add_argument("--prompt_template", nargs="+", help="How class names become prompts; each is judged by itself.")
    sets.add_argument(
        "--class_lists",
        nargs="+",
        metavar="FILE",
        help="Other names of the same classes in the same order, or with more of them behind; each list is judged by "
        "itself.",
    )
    sets.add_argument("--max_samples", type=int, help="Images per set, chosen by the seed; all if absent.")
    sets.add_argument("--num_workers", type=int, default=0, help="Processes that read images ahead.")

    noise = parser.add_argument_group("certificates")
    noise.add_argument(
        "--sigma", nargs="+", default=["0.25"], help="Standard deviations of the noise, of pixels from 0 to 1."
    )
    noise.add_argument("--draws", type=int, default=1000, help="Draws that bound a class; the authors take 100,000.")
    noise.add_argument("--selection", type=int, default=100, help="Other draws, that pick it.")
    noise.add_argument(
        "--alpha", type=float, default=0.001, help="How probable it may be that a certificate does not hold."
    )
    noise.add_argument(
        "--radii", nargs="+", help="Radii in L2 of the tables and attacks; 0 to twice the smallest sigma if absent."
    )

    attacks = parser.add_argument_group("attacks on the smoothed model")
    attacks.add_argument(
        "--attacks",
        nargs="+",
        help="Attacks in L2, each NAME[,option=value...] without a radius, or none; PGD-20 through the noise if "
        "absent.",
    )
    attacks.add_argument("--eot", type=int, help="Draws in a step of an attack; 4 if absent.")
    attacks.add_argument(
        "--verdict_draws", type=int, default=100, help="By how many draws an attacked image is judged."
    )

    out = parser.add_argument_group("output")
    out.add_argument("--batch_size", type=int, default=128, help="Draws, or attacked images, at once.")
    out.add_argument("--seed", type=int, default=0, help="Of all draws and the choice of images.")
    out.add_argument("--format", default="text", choices=FORMATS, help="How tables are printed.")
    out.add_argument("--output_file", help="JSON file for the whole report.")
    out.add_argument("--verdict_file", help="What was found is appended to it as it comes, to go on from.")
    out.add_argument("--plots", help="Folder for the picture: accuracy against the radius.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Certifies what a command line asks for, prints tables and writes the files that it names."""
    args = parse(argv, script)
    if args.max_samples is not None:
        check_count("--max_samples", args.max_samples)
    check_output_file("--output_file", args.output_file)
    check_output_file("--verdict_file", args.verdict_file)
    check_output_folder("--plots", args.plots)
    if args.eval_class_names and args.class_lists:
        raise ValueError("You passed --eval_class_names with --class_lists, which are class names, too. Pass one.")
    from ..evaluation.certified_sets import DEFAULT_ATTACKS, certify_sets

    state = PartialState()
    name = args.model or str(emoji_folder() / "model")
    model, processor = load_pair(name, args.processor, args.base, revision=args.revision)
    attacks = DEFAULT_ATTACKS if args.attacks is None else args.attacks
    with one_line_stops(lambda: going_on_from(args.verdict_file)):
        report = certify_sets(
            model.to(state.device),
            processor,
            load_lists(args, processor),
            sigma=args.sigma,
            draws=args.draws,
            selection=args.selection,
            alpha=args.alpha,
            radii=args.radii,
            attacks=() if attacks == ["none"] else attacks,
            eot=args.eot,
            verdict_draws=args.verdict_draws,
            batch_size=args.batch_size,
            max_samples=args.max_samples,
            seed=args.seed,
            verdict_file=args.verdict_file,
            num_workers=args.num_workers,
        )
    report.provenance["model"] = model_record(model, name)
    if state.is_main_process:
        show(report, args)


def load_lists(args: argparse.Namespace, processor: Any) -> list[ZeroShotDataset]:
    """Each set of a command line with each of its lists of names and templates, named after what is several."""
    from ..suites.sets import load_set

    texts = args.eval_sets or [f"{emoji_folder() / 'data'}:{group}@test" for group in GROUPS]
    templates = args.prompt_template or [None if args.eval_sets else "an emoji of {}"]
    sets = []
    for text in texts:
        for file in args.class_lists or [None]:
            for template in templates:
                options = options_of(text, args, texts)
                if file is not None:
                    options["class_names"] = names_from(file)
                with flags_named(text, {**FLAGS, "class_names": "--eval_class_names or --class_lists"}):
                    data = load_set(text, processor, prompt_templates=template, **options)
                several = [Path(file).stem] if file is not None and len(args.class_lists) > 1 else []
                several += [template] if len(templates) > 1 else []
                if several:
                    data.name = f"{data.name} [{', '.join(several)}]"
                sets.append(data)
    return sets


def show(report: CertificateReport, args: argparse.Namespace) -> None:
    """Prints a report, and writes what a command line asks for."""
    for rows in (report.rows(), report.bound_rows()):
        print(render(rows, args.format), end="\n\n")
    print(f"Protocol {report.protocol_hash}; seed {report.protocol['seed']}.")
    for text in report.statement:
        print(text)
    for text in report.warnings:
        print(f"WARNING: {text}.")

    if args.output_file:
        report.save(args.output_file)
    if args.plots:
        from ..plots import certified_curve

        certified_curve(report, Path(args.plots) / "certified.png")


if __name__ == "__main__":
    main()
