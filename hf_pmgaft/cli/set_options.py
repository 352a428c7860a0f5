"""What a command line says of single evaluation sets: VALUE for all of them, NAME=VALUE for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..prompts import names_from

FLAGS = {
    "class_names": "--eval_class_names",
    "image_column": "--eval_image_column",
    "label_column": "--eval_label_column",
    "accept_any_class_names": "--accept_any_class_names",
    "mask_column": "--mask_column",
    "ignore_index": "--ignore_index",
    "reduce_zero_label": "--reduce_zero_label",
    "background_threshold": "--background_threshold",
    "short_edge": "--short_edge",
}
HELP = {
    "eval_class_names": "Class names of evaluation sets, where their labels have none: a file with one name per line, "
    "or a list of the package such as tiny_imagenet, for all sets; SET=FILE for one of them.",
    "eval_image_column": "Image column of evaluation sets; SET=COLUMN for one of them.",
    "eval_label_column": "Label column of evaluation sets; SET=COLUMN for one of them.",
    "accept_any_class_names": "Take class names that a text tower cannot know, such as n01443537.",
    "mask_column": "Column of masks of class indices, if not the usual one; SET=COLUMN for one of the sets.",
    "ignore_index": "Values in masks that stand for no class; 255 if absent.",
    "reduce_zero_label": "0 in masks stands for no class, and 1 for the first.",
    "background_threshold": "Probability below which a pixel is of the first class, background.",
    "readout": "How segmentation compares pixels with names: vanilla, maskclip, sclip or clearclip[,scale=...]"
    "[,window_stride=...].",
    "short_edge": "Shortest edge to which images and masks are resized; their own size if absent.",
}


def add_column_options(parser: Any, several: bool = True) -> None:
    """Adds what a command line may say of the columns and class names of sets.

    Args:
        several (`bool`): Whether the command line may name several sets.

    Example:
        >>> from argparse import ArgumentParser
        >>> parser = ArgumentParser()
        >>> add_column_options(parser)
        >>> parser.parse_args(["--eval_label_column", "fine", "dtd=texture"]).eval_label_column
        ['fine', 'dtd=texture']
    """
    nargs = "+" if several else 1
    parser.add_argument("--eval_class_names", nargs=nargs, metavar="FILE", help=HELP["eval_class_names"])
    parser.add_argument("--eval_image_column", nargs=nargs, metavar="COLUMN", help=HELP["eval_image_column"])
    parser.add_argument("--eval_label_column", nargs=nargs, metavar="COLUMN", help=HELP["eval_label_column"])
    parser.add_argument("--accept_any_class_names", action="store_true", help=HELP["accept_any_class_names"])


def add_mask_options(parser: Any) -> None:
    """Adds what a command line may say of sets with masks.

    Example:
        >>> from argparse import ArgumentParser
        >>> parser = ArgumentParser()
        >>> add_mask_options(parser)
        >>> parser.parse_args(["--short_edge", "336"]).short_edge
        336
    """
    parser.add_argument("--mask_column", nargs="+", help=HELP["mask_column"])
    parser.add_argument("--ignore_index", nargs="+", type=int, help=HELP["ignore_index"])
    parser.add_argument("--reduce_zero_label", action="store_true", default=None, help=HELP["reduce_zero_label"])
    parser.add_argument("--background_threshold", type=float, help=HELP["background_threshold"])
    parser.add_argument("--short_edge", type=int, help=HELP["short_edge"])


def options_of(text: str, args: Any, texts: Sequence[str], head: str | None = None) -> dict[str, Any]:
    """The keywords of `load_set` for one evaluation set.

    Args:
        text (`str`): The set, as the command line names it.
        args: Has `eval_class_names`, `eval_image_column`, `eval_label_column` and `accept_any_class_names`.
        texts (`list[str]`): All sets of the command line.
        head (`str`, *optional*): What classifies in place of class names, of which any will then do.

    Raises:
        ValueError: for a value of a set that is none of them, and for two values of one.

    Example:
        >>> from argparse import Namespace
        >>> columns = {"eval_image_column": None, "eval_label_column": ["fine", "dtd=texture"]}
        >>> args = Namespace(eval_class_names=None, accept_any_class_names=False, **columns)
        >>> options_of("user/dtd@test", args, ["user/dtd@test", "user/food"])["label_column"]
        'texture'
    """
    from ..suites.sets import set_name

    name, names = set_name(text), {set_name(each) for each in texts}
    class_names = value_of("--eval_class_names", args.eval_class_names, name, names)
    return {
        "class_names": None if class_names is None else names_from(class_names),
        "image_column": value_of("--eval_image_column", args.eval_image_column, name, names),
        "label_column": value_of("--eval_label_column", args.eval_label_column, name, names),
        "accept_any_class_names": args.accept_any_class_names or head is not None,
    }


def mask_options_of(text: str, args: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The keywords of `load_set` for the masks of one set: those that were passed.

    Args:
        text (`str`), args, texts (`list[str]`): See [`options_of`]; what [`add_mask_options`] adds.

    Example:
        >>> from argparse import ArgumentParser
        >>> parser = ArgumentParser()
        >>> add_mask_options(parser)
        >>> mask_options_of("user/streets", parser.parse_args(["--ignore_index", "0", "255"]), ["user/streets"])
        {'ignore_index': [0, 255]}
    """
    from ..suites.sets import set_name

    names = {set_name(each) for each in texts}
    options = {
        "mask_column": value_of("--mask_column", args.mask_column, set_name(text), names),
        "ignore_index": args.ignore_index,
        "reduce_zero_label": args.reduce_zero_label,
        "background_threshold": args.background_threshold,
        "short_edge": args.short_edge,
    }
    return {option: value for option, value in options.items() if value is not None}


def value_of(flag: str, values: Sequence[str] | None, name: str, names: set[str]) -> str | None:
    """What a flag says of the set `name`: its own value, or else that of all sets.

    Example:
        >>> value_of("--eval_label_column", ["fine", "dtd=texture"], "food", {"dtd", "food"})
        'fine'
    """
    by_set: dict[str, str] = {}  # under no name the one of all sets
    for text in values or ():
        of_set, is_of_one, value = text.partition("=")
        if not is_of_one or Path(text).exists():
            of_set, value = "", text
        if of_set and of_set not in names:
            raise ValueError(
                f"You passed {flag} {text}, but there is no evaluation set {of_set!r}. There are: "
                f"{', '.join(sorted(names))}."
            )
        if of_set in by_set:
            raise ValueError(
                f"You passed {flag} twice for {of_set or 'all sets'}: {by_set[of_set]} and {value}. Pass one value "
                "for all sets, or SET=VALUE for each."
            )
        by_set[of_set] = value
    return by_set.get(name, by_set.get(""))
