"""Measures the clean and robust zero-shot accuracy of any CLIP checkpoint on any labelled image sets, or its recall on
any image-caption sets.

    python examples/evaluate_robustness.py --model outputs/clip-pmgaft-emoji --eps 4/255 8/255
    python examples/evaluate_robustness.py --model outputs/clip-pmgaft-emoji --attacks autoattack --output_file aa.json
    accelerate launch examples/evaluate_robustness.py --model openai/clip-vit-base-patch32 --suite paper16 \\
        --limit 1000 --eps 1/255 --attacks autoattack,version=fast --verdict_file verdicts.jsonl
    python examples/evaluate_robustness.py --compare before.json after.json
    python examples/evaluate_robustness.py --caption_column label,tags --num_steps 20

An attack is a name and its options: pgd,num_steps=100,loss=ce,restarts=5 or fgsm, cw, apgd, apgd_t, fab, fab_t,
square, autoattack,version=standard, patch,size=16, corruption,kind=jpeg,severity=3. Radii and norm come from --eps and
--norm unless it names its own. The first attack at the first radius is the headline; others are reported beside it.

Without --eval_sets or --suite it uses the eight emoji groups of examples/emoji, in a drawing style that no training
saw. With --caption_column the images of a set and their captions are retrieved by each other (recall at 1, 5 and 10,
under fgsm, pgd or corruption); with --target images are pulled to a caption. With --verdict_file, a run that was
killed goes on where it was. Several processes share the images.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from accelerate import PartialState

from hf_pmgaft.attacks import CORRUPTIONS, SEVERITIES, parse_radius
from hf_pmgaft.evaluation.comparison import compare_reports
from hf_pmgaft.evaluation.report import RobustnessReport
from hf_pmgaft.evaluation.tables import FORMATS, render
from hf_pmgaft.evaluation.verdicts import VERDICTS
from hf_pmgaft.models.resolution import at_resolution
from hf_pmgaft.plots import clean_against_robust, robustness_bars, robustness_curve
from hf_pmgaft.tuning.saved import load_model

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from hf_pmgaft import RetrievalDataset, ZeroShotDataset
    from hf_pmgaft.data import EvaluationImages

EMOJI_DATA = Path(__file__).parent / "emoji" / "data"
HEADS = ("linear_probe", "nearest_class_mean")
GROUPS = ("animals", "smileys", "food", "travel", "activities", "objects", "symbols", "flags")
# RobustBench's radii for images of 32 pixels; the L2 one grows with the edge, the L1 one with the area.
L2_EPS, L1_EPS = 0.5, 12.0


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default=str(EMOJI_DATA.parent / "model"), help="Hub id or folder of a CLIPModel.")
    sets = parser.add_argument_group("images")
    sets.add_argument("--eval_sets", nargs="+", help="Sets, each NAME[:config][@split]; the emoji groups if absent.")
    sets.add_argument("--suite", help="A benchmark in place of single sets: paper16, natural_shift or a YAML file.")
    sets.add_argument("--suite_sets", nargs="+", help="Some sets of the suite; all if absent.")
    sets.add_argument("--data_root", help="Folder with a sub-folder per set of the suite, read in place of the Hub.")
    sets.add_argument("--limit", type=int, help="Images per set of the suite, by its stored sample ids.")
    sets.add_argument("--head", choices=HEADS, help="Classify by labelled images instead of class names.")
    sets.add_argument("--support_sets", nargs="+", help="What --head is fitted on: for each of --eval_sets one set.")
    sets.add_argument("--image_size", type=int, help="Another resolution, position embeddings interpolated once.")
    sets.add_argument("--split", default="test", help="Split of the emoji groups: test or validation.")
    sets.add_argument("--prompt_template", help="How class names become prompts; captions stay as they are if absent.")
    sets.add_argument("--caption_column", help="Retrieve by captions: NAME[,NAME], or auto for the usual names.")
    sets.add_argument("--target", help="Pull images to this caption, or, with drawn, each to one that is not its own.")
    sets.add_argument("--max_samples", type=int, help="Images per set, chosen by the seed; all if absent.")
    sets.add_argument("--sample_ids", help="JSON file with the rows to evaluate, by set.")
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
        action="store_true",
        help="Beside the headline: APGD in L2 and L1, twice the radius, a patch, and corruptions at five severities.",
    )
    judge = parser.add_argument_group("verdict")
    judge.add_argument("--verdict", default="any_iterate", choices=VERDICTS, help="What counts as fooled.")
    judge.add_argument("--eight_bit", action="store_true", help="Judge again after rounding to 8 bits.")
    judge.add_argument("--batch_size", type=int, default=64, help="Images at once.")
    judge.add_argument("--seed", type=int, default=0, help="Of the noise and the choice of images.")
    out = parser.add_argument_group("output")
    out.add_argument("--format", default="text", choices=FORMATS, help="How tables are printed.")
    out.add_argument("--output_file", help="JSON file for the whole report, or the comparison.")
    out.add_argument("--verdict_file", help="Verdicts are appended to it as they come, to go on from.")
    out.add_argument(
        "--plots", help="Folder for pictures: bars per set, accuracy against radius, clean against robust."
    )
    out.add_argument("--compare", nargs=2, metavar="REPORT", help="Compare two reports instead of evaluating.")
    out.add_argument("--ignore", nargs="+", default=[], help="Protocol keys that may differ, such as versions.torch.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.compare:
        compare(args)
        return
    from transformers import AutoProcessor

    from hf_pmgaft import evaluate_robustness
    from hf_pmgaft.evaluation.heads import make_head

    state = PartialState()
    processor = AutoProcessor.from_pretrained(args.model, trust_remote_code=False)
    model = load_model(args.model)
    if args.image_size is not None:
        model, processor = at_resolution(model, processor, args.image_size)
    sets = load_sets(args, processor)
    report = evaluate_robustness(
        model.to(state.device),
        processor,
        sets,
        attack_specs(args, sets[0].shape[-1]),
        head=make_head(args.head, [load_set(text, processor, "{}", {}) for text in args.support_sets or []], sets),
        verdict=args.verdict,
        eight_bit=args.eight_bit,
        batch_size=args.batch_size,
        max_samples=args.max_samples,
        seed=args.seed,
        verdict_file=args.verdict_file,
    )
    if state.is_main_process:
        show(args, report)


def load_sets(args: argparse.Namespace, processor: Any) -> list[EvaluationImages]:
    """The sets that the command line names."""
    of_suite = {"--suite_sets": args.suite_sets, "--data_root": args.data_root, "--limit": args.limit}
    of_sets = {
        "--eval_sets": args.eval_sets,
        "--prompt_template": args.prompt_template,
        "--sample_ids": args.sample_ids,
        "--head": args.head,
        "--caption_column": args.caption_column,
    }
    idle = [flag for flag, value in (of_sets if args.suite else of_suite).items() if value is not None]
    if idle:
        raise ValueError(
            f"You passed {', '.join(idle)} {'with' if args.suite else 'without'} --suite, where it has no effect. "
            "Leave it out; --help says what single sets and what suites take."
        )
    if args.target is not None and args.caption_column is None:
        raise ValueError(f"You passed --target {args.target!r} without --caption_column, where it has no effect.")
    rows = json.loads(Path(args.sample_ids).read_text(encoding="utf-8")) if args.sample_ids else {}
    if args.suite:
        from hf_pmgaft.suites import load_suite

        return load_suite(args.suite, processor, names=args.suite_sets, limit=args.limit, data_root=args.data_root)
    template = args.prompt_template or ("This is a photo of a {}" if args.eval_sets else "an emoji of {}")
    texts = args.eval_sets or [f"{EMOJI_DATA}:{group}@{args.split}" for group in GROUPS]
    if args.caption_column is not None:
        options = {"prompt_templates": args.prompt_template or "{}", "target": args.target}
        sets = [load_captioned_set(text, processor, args.caption_column, rows, **options) for text in texts]
    else:
        sets = [load_set(text, processor, template, rows) for text in texts]
    if args.sample_ids and not {data.name for data in sets} & set(rows):
        raise ValueError(
            f"You passed --sample_ids {args.sample_ids}, which holds rows of {sorted(rows)} and none of the sets "
            f"{sorted(data.name for data in sets)}, which would be evaluated whole. Pass the file of these sets."
        )
    return sets


def load_set(text: str, processor: Any, template: str, rows: dict[str, list[int]]) -> ZeroShotDataset:
    from hf_pmgaft import ZeroShotDataset

    images, name = load_named(text)
    return ZeroShotDataset(images, processor, None, template, name, sample_ids=rows.get(name))


def load_captioned_set(
    text: str, processor: Any, caption_column: str, rows: dict[str, list[int]], **options: Any
) -> RetrievalDataset:
    from hf_pmgaft import RetrievalDataset

    images, name = load_named(text)
    return RetrievalDataset(images, processor, caption_column, name=name, sample_ids=rows.get(name), **options)


def load_named(text: str) -> tuple[Any, str]:
    """The images of a set `NAME[:config][@split]`, and how it is called."""
    from hf_pmgaft.data import load_images, parse_set

    path, config, split = parse_set(text)
    return load_images(path, config, split), config or Path(path).stem


def attack_specs(args: argparse.Namespace, edge: int) -> list[dict[str, Any]]:
    """The attacks that the command line names, on images with so many pixels along an edge."""
    # Beyond the first rank the margin alone is too kind: it moves the best two captions.
    losses = [args.loss] if args.loss else ["margin", "ce"] if args.caption_column else ["margin"]
    pgd = {"attack": "pgd", "num_steps": args.num_steps, "restarts": args.restarts}
    named = [parse_attack(text) for text in args.attacks or ()] or [{**pgd, "loss": loss} for loss in losses]
    specs = []
    for eps in args.eps:
        for spec in named:
            ball = {} if spec["attack"] in ("patch", "corruption") else {"eps": eps, "norm": args.norm}
            specs.append({**ball, **spec})
    return specs + (unseen_specs(args, edge) if args.unseen else [])


def parse_attack(text: str) -> dict[str, Any]:
    """`pgd,num_steps=100,loss=ce` -> `{"attack": "pgd", "num_steps": 100, "loss": "ce"}`."""
    name, *options = text.split(",")
    wrong = [option for option in options if "=" not in option]
    if wrong:
        raise ValueError(f"The attack {text!r} has {wrong}, which is no option=value. Write as pgd,num_steps=100.")
    return {"attack": name, **{key: yaml.safe_load(value) for key, value in (o.split("=", 1) for o in options)}}


def unseen_specs(args: argparse.Namespace, edge: int) -> list[dict[str, Any]]:
    """Threats that training did not see, in a few attacks each."""
    parse_radius(args.eps[0], args.norm)  # says what is wrong with it
    numerator, slash, denominator = args.eps[0].partition("/")
    double = {"eps": f"{2 * float(numerator):g}{slash}{denominator}", "norm": args.norm}
    other = {"l2": round(L2_EPS * edge / 32, 3), "l1": round(L1_EPS * (edge / 32) ** 2, 3)}
    specs = [{"attack": "pgd", **double, "num_steps": 50, "loss": "margin"}]
    if args.norm == "l1":  # which PGD does not know
        specs = [{"attack": "apgd", **double, "loss": loss} for loss in ("ce", "margin")]
    for norm, eps in other.items():
        if norm != args.norm:
            specs += [{"attack": "apgd", "eps": eps, "norm": norm, "loss": loss} for loss in ("ce", "margin")]
    specs.append({"attack": "patch", "size": max(1, edge // 5)})
    return specs + [
        {"attack": "corruption", "kind": kind, "severity": severity} for kind in CORRUPTIONS for severity in SEVERITIES
    ]


def show(args: argparse.Namespace, report: RobustnessReport) -> None:
    """Prints the report, and writes what was asked for."""
    if args.output_file:
        report.save(args.output_file)
    for rows in (report.rows(), report.attack_rows(), report.corruption_rows()):
        if len(rows) > 1:
            print(render(rows, args.format), end="\n\n")
    print(f"Protocol {report.protocol_hash}; {report.protocol['verdict']}.")
    for text in report.retrieval:
        print(text)
    print("Robust figures are upper bounds until a stronger attack fails to lower them.")
    for flag in report.flags:
        print(f"WARNING ({flag['flag']}, {flag['set']}): {flag['message']}.")
    if args.plots:
        draw({Path(args.model).name: report}, Path(args.plots))


def draw(reports: dict[str, RobustnessReport], folder: Path) -> None:
    """Pictures of one or several reports; accuracy against radius for every norm of a ball."""
    folder.mkdir(parents=True, exist_ok=True)
    robustness_bars(reports, folder / "bars.png")
    first = next(iter(reports.values()))
    for norm in sorted({spec.norm for spec in first.attacks} - {None}):
        for figure in first.figures:
            name = "" if figure.is_accuracy else f"_{figure.key.lower()}"
            robustness_curve(reports, folder / f"curve_{norm}{name}.png", norm=norm, figure=figure)
    if len(reports) > 1:
        clean_against_robust(reports, folder / "clean_against_robust.png")


def compare(args: argparse.Namespace) -> None:
    """Prints by how much the second report's model does better, image by image."""
    first, second = map(RobustnessReport.load, args.compare)
    comparison = compare_reports(first, second, args.ignore)
    print(render(comparison.rows(), args.format))
    print(f"\nProtocol {first.protocol_hash}; {args.compare[1]} minus {args.compare[0]}, in points.")
    if args.output_file:
        Path(args.output_file).write_text(json.dumps(comparison.to_dict(), indent=1) + "\n", encoding="utf-8")
    if args.plots:
        draw(dict(zip(args.compare, (first, second), strict=True)), Path(args.plots))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, TypeError, ImportError) as error:  # what was passed cannot work, and it says why
        sys.exit(f"error: {error}")
