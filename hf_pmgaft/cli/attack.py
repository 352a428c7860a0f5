"""Attacks one picture on CLIP checkpoints, and writes the adversarial one of each with what it says before and after.

    pmgaft attack
    pmgaft attack cat.png --class_names cat dog "hot dog" --label cat --models openai/clip-vit-base-patch32 robust
    pmgaft attack cat.png --class_names names.txt --target dog --attack pgd,eps=8/255,num_steps=50,loss=margin
    pmgaft attack --eval_set ethz/food101@validation --row 7 --prompt_template "a photo of {}, a type of food"

The picture goes to each model at that model's own size, is attacked there to the end of the attack, and is judged as
the 8-bit file that is written. Several models also judge the pictures that are made on each other.

Without a picture it takes row 0 of the embedded food, in a drawing style that no training saw (emoji:food@test);
without --models the small CLIP of the package, which --models calls emoji.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from ..embedded import find_embedded
from ..evaluation.tables import FORMATS
from ..files import check_output_folder
from ..progress import progress_bar
from ..prompts import check_class_names, check_prompt_templates, names_from, parse_class_names, shipped_lists
from ..registry import check_count
from ..short_names import short_names
from ..tuning.saved import load_one_of_several
from .errors import flags_named, one_line_errors
from .parser import add_base_options, make_parser
from .set_options import FLAGS, HELP, options_of

if TYPE_CHECKING:  # what brings in `datasets` and pandas comes where it is used, so that --help is quick
    from ..data.evaluation_sets import ZeroShotDataset

DEFAULT_ATTACK = "pgd,eps=4/255,num_steps=20,loss=margin"
DEFAULT_SET = "emoji:food@test"
EMOJI_TEMPLATE = "an emoji of {}"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
Pair = tuple[Any, Any]


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("attack", __doc__, script)
    parser.add_argument("image", nargs="?", help="File of the picture, before all options; else a row of --eval_set.")
    parser.add_argument("--models", nargs="+", default=["emoji"], help="Hub ids, folders or files of CLIPs.")
    add_base_options(parser, "--models")

    classes = parser.add_argument_group("classes")
    classes.add_argument(
        "--class_names",
        nargs="+",
        action="extend",
        help="Names, or one file of them, one list of the package such as cifar10, or one text with commas. Those of "
        "--eval_set if absent.",
    )
    classes.add_argument("--accept_any_class_names", action="store_true", help=HELP["accept_any_class_names"])
    classes.add_argument(
        "--label", help="The right class; that of the row or, for a file, what each model says of it if absent."
    )
    classes.add_argument(
        "--label_as_predicted", action="store_true", help="The right class of a row, too, is what each model says."
    )
    classes.add_argument("--target", help="Class to reach, by pgd or fgsm; any other than the label if absent.")
    classes.add_argument(
        "--prompt_template", nargs="+", action="extend", help="How class names become prompts, one or several."
    )

    images = parser.add_argument_group("image")
    images.add_argument("--eval_set", help="Set that the picture is from: NAME[:config][@split].")
    images.add_argument("--row", type=int, default=0, help="Its row there.")
    images.add_argument("--eval_class_names", nargs=1, metavar="FILE", help=HELP["eval_class_names"])
    images.add_argument("--eval_image_column", nargs=1, metavar="COLUMN", help=HELP["eval_image_column"])
    images.add_argument("--eval_label_column", nargs=1, metavar="COLUMN", help=HELP["eval_label_column"])
    images.add_argument("--max_pixels", type=int, help="Pixels that a file may have; 25 million if absent.")

    attack = parser.add_argument_group("attack")
    attack.add_argument("--attack", default=DEFAULT_ATTACK, help="NAME[,option=value...].")
    attack.add_argument("--seed", type=int, default=0, help="Of the attack's noise.")

    out = parser.add_argument_group("output")
    out.add_argument("--output_folder", default="attacked", help="Where pictures and attack.json go.")
    out.add_argument("--top", type=int, default=5, help="How many classes are shown, before and after.")
    out.add_argument("--format", default="text", choices=FORMATS, help="How tables are printed.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Attacks what a command line asks for, prints tables and writes the files."""
    args = parse(argv, script)
    _check(args)
    places = [find_embedded(model) for model in args.models]
    names = short_names("model", places)

    from ..evaluation.single_image import PictureClassifier
    from .attack_report import Attacked, show, write

    # The picture, of a file before a model is opened
    asked = None if args.image is None else ask_about_file(args)
    device = PartialState().device
    models: dict[str, Pair] = {}
    for name, place in zip(names, places, strict=True):
        model, processor = load_one_of_several(place, args.processor, args.base)
        models[name] = (model.to(device), processor)
        asked = asked or ask_about_row(args, processor)

    classifiers = {
        name: PictureClassifier(
            model,
            processor,
            asked.class_names,
            asked.prompt_templates,
            accept_any_class_names=args.accept_any_class_names,
        )
        for name, (model, processor) in models.items()
    }
    attacked = {}
    for name, classifier in classifiers.items():
        with progress_bar(f"{name}: {args.attack}", classifier.most_passes(args.attack), unit="pass", delay=1) as bar:
            attacked[name] = classifier.attack(
                asked.picture if asked.picture is not None else _row_of(args, models[name][1]),
                args.attack,
                label=asked.label,
                target=args.target,
                seed=args.seed,
                row=asked.row,
                on_pass=lambda number, margin, bar=bar: bar.update(),
            )

    result = Attacked(asked.title, attacked, places, classifiers)
    files = write(result, args.output_folder)
    show(result, files, top=args.top, style=args.format)


def _check(args: argparse.Namespace) -> None:
    """Raises `ValueError` for what cannot work, before a file is read."""
    from ..evaluation.single_image_checks import check_attack

    check_output_folder("--output_folder", args.output_folder)
    check_count("--row", args.row, least=0)
    check_count("--top", args.top)
    if args.max_pixels is not None:
        check_count("--max_pixels", args.max_pixels)
    check_attack(args.attack, args.target, num_classes=1000)
    if args.prompt_template is not None:
        check_prompt_templates(args.prompt_template)
    if args.image is not None and args.eval_set is not None:
        raise ValueError(f"You passed the picture {args.image!r} and --eval_set. Pass one of them.")
    if args.label is not None and args.label_as_predicted:
        raise ValueError(
            "You passed --label and --label_as_predicted, which both say what is right. Pass one of them."
        )
    if args.image is None and Path(args.models[-1]).suffix.lower() in PICTURES:
        raise ValueError(f"You passed the picture {args.models[-1]!r} as a model. Put it before all options.")


# ---- What is asked ----


@dataclass(frozen=True)
class Asked:
    """A picture and its classes.

    Args:
        title (`str`): What the picture is called.
        class_names (`list[str]`), prompt_templates (`list[str]`): What it can be, and how that is said.
        label (`str`, *optional*): What it is, if that is known.
        picture (`Image`, *optional*): The picture; `None` of a row, which each model's processor reads.
        row (`int`): Where it stands in its set.
    """

    title: str
    class_names: list[str]
    prompt_templates: list[str]
    label: str | None
    picture: Any = None
    row: int = 0


def ask_about_file(args: argparse.Namespace) -> Asked:
    """The picture in a file, with the class names of the command line.

    Raises:
        ValueError: for no class names, and a file that is no picture.
    """
    from ..data.pictures import MAX_PIXELS, open_picture

    if args.class_names is None:
        raise ValueError(f"You passed the picture {args.image!r} without --class_names. Pass two or more.")
    class_names = read_class_names(args.class_names)
    is_embedded = args.models == ["emoji"] and args.prompt_template is None
    return Asked(
        title=Path(args.image).name,
        class_names=class_names,
        prompt_templates=[EMOJI_TEMPLATE] if is_embedded else args.prompt_template,
        label=args.label,
        picture=open_picture(args.image, args.max_pixels or MAX_PIXELS),
    )


def ask_about_row(args: argparse.Namespace, processor: Any) -> Asked:
    """The picture in a row of a set, with the classes and templates of the set where the command line has none.

    Raises:
        ValueError: for a set without one class per image, and a row that it has not.
    """
    data = _set(args, processor)
    label = args.label
    if label is None and not args.label_as_predicted:
        label = data.class_names[data[args.row]["labels"]]
    return Asked(
        title=f"row {args.row} of {DEFAULT_SET if args.eval_set is None else data.name}",
        class_names=data.class_names if args.class_names is None else read_class_names(args.class_names),
        prompt_templates=data.prompt_templates,
        label=label,
        row=args.row,
    )


def _row_of(args: argparse.Namespace, processor: Any) -> Any:
    """The pixels of a row, as an evaluation of the set reads them for one model."""
    return _set(args, processor)[args.row]["images"]


def _set(args: argparse.Namespace, processor: Any) -> ZeroShotDataset:
    """The set of a command line, as one model's processor reads it."""
    from ..data.evaluation_sets import ZeroShotDataset
    from ..suites.sets import load_set

    text = find_embedded(args.eval_set or DEFAULT_SET)
    template = args.prompt_template or (None if args.eval_set else EMOJI_TEMPLATE)
    with flags_named(text, FLAGS):
        data = load_set(text, processor, prompt_templates=template, **options_of(text, args, [text]))
    if not isinstance(data, ZeroShotDataset):
        raise ValueError(
            f"You passed --eval_set {text}, whose images have no class each. Pass a set of labelled images."
        )
    if args.row >= len(data):
        raise ValueError(
            f"You passed --row {args.row}, but {text} has the rows 0 to {len(data) - 1}. Pass one of them."
        )
    return data


def read_class_names(values: Sequence[str]) -> list[str]:
    """Class names as a command line has them: each a word, or one word for a file, a list or a text with commas.

    Raises:
        ValueError: as [`~hf_pmgaft.prompts.check_class_names`] and [`~hf_pmgaft.prompts.names_from`] do.

    Example:
        >>> read_class_names(["cat", "hot dog"]), read_class_names(["cat, hot dog"])
        (['cat', 'hot dog'], ['cat', 'hot dog'])
        >>> len(read_class_names(["cifar10"]))
        10
    """
    if len(values) > 1:
        return check_class_names(values)
    (value,) = values
    if Path(value).is_file() or value in shipped_lists():
        return check_class_names(names_from(value))
    return parse_class_names(value)


if __name__ == "__main__":
    main()
