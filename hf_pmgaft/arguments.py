"""Command lines with defaults from a YAML file, which may be a recipe of the package."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from .embedded import emoji_folder
from .registry import near_misses

RECIPES = Path(__file__).parent / "recipes"
# The recipe of the embedded default is a budget for any method; those of papers are each of one.
DEFAULT_RECIPE = "emoji"
# What an objective, attack or tuning has of its own, and another one in its place has not.
OPTIONS_OF = {
    "objective": ("objective_kwargs",),
    "attack": ("attack_kwargs", "step_size"),
    "tuning": ("tuning_kwargs",),
}
# What a paper chose for its method alone.
CHOSEN_FOR_METHOD = ("optim", "learning_rate", "eps")


class ArgumentParser(HfArgumentParser):
    """Raises what is wrong with a command line instead of printing all its options first.

    Args:
        groups (`dict[str, list[str]]`, *optional*): Titles under which `--help` lists options, in order, and the
            options of each by name.
    """

    def __init__(self, *args, groups: Mapping[str, Collection[str]] | None = None, **options):
        self.titles = {}
        for title, names in (groups or {}).items():
            self.titles.update({f"--{name}": title for name in names})
            self.titles.update({f"--no_{name}": title for name in names})  # which the parser adds to some
        self.groups: dict[str, argparse._ArgumentGroup] = {}
        super().__init__(*args, **options)

    def add_argument(self, *flags: str, **options):
        title = self.titles.get(flags[0])
        if title is None:
            return super().add_argument(*flags, **options)

        if not self.groups:  # all at once, so that they stand in order
            self.groups = {title: self.add_argument_group(title) for title in dict.fromkeys(self.titles.values())}
        return self.groups[title].add_argument(*flags, **options)

    def error(self, message: str):
        raise ValueError(f"{message}. See --help for all options.")


# ---- The command line ----


def parse_args(
    dataclass_types: Sequence[type],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    prog: str | None = None,
    groups: Mapping[str, Collection[str]] | None = None,
) -> tuple[Any, ...]:
    r"""Parses a command line into dataclasses. `--config FILE` or `--recipe NAME` sets defaults that flags override.

    Unknown and abbreviated keys are refused, in the file as on the command line. In the file `{config_dir}` stands for
    its folder, `{emoji}` for that of the embedded model and data, and `null` for an option that is not given. A flag
    that names another objective, attack or tuning than the file drops the file's options of that one, and another
    objective than a paper's recipe needs an optimizer, learning rate and radius of its own.

    Args:
        dataclass_types (`list[type]`): Their fields become flags of the same names.
        argv (`list[str]`, *optional*): The command line without its first word; that of the process if not given.
        description (`str`, *optional*): What `--help` begins with.
        prog (`str`, *optional*): How the program is called.
        groups (`dict[str, list[str]]`, *optional*): Titles under which `--help` lists the options.

    Returns:
        `tuple`: One instance per dataclass.

    Raises:
        ValueError: for an unknown option, a value of the wrong kind, and a file that cannot be read.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Threat:
        ...     eps: str = "1/255"
        ...     num_steps: int = 2
        >>> size = Path("mine.yaml").write_text("eps: 4/255\nnum_steps: 10")
        >>> parse_args([Threat], ["--config", "mine.yaml", "--num_steps", "3"])
        (Threat(eps='4/255', num_steps=3),)
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(
        dataclass_types,
        groups=groups,
        prog=prog,
        usage="%(prog)s [options]",  # whose list would be longer than a screen
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_flags_of_defaults(parser)
    options = {option.name: option for cls in dataclass_types for option in fields(cls) if option.init}

    # Defaults, as flags before all others, so that both are checked by the same parser
    file = _file_of_defaults(argv)
    if file is not None:
        values = read_options(file, options)
        _check_method(file, values, argv)
        values = _without_options_of_others(values, argv, options)
        # A list for an option that is one word on the command line (`report_to`) cannot be written as a flag.
        lists = {name: value for name, value in values.items() if _is_list_for_a_word(options[name], value)}
        parser.set_defaults(**lists)
        flags = [_flags(options[name], value) for name, value in values.items() if name not in lists]
        argv = [word for words in flags for word in words] + argv

    _check_all_known(parser, argv, options)
    *parsed, _ = parser.parse_args_into_dataclasses(args=argv, look_for_args_file=False)
    return tuple(parsed)


def _add_flags_of_defaults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="YAML file of defaults, or a recipe; flags override them.")
    parser.add_argument("--recipe", metavar="NAME", help="A recipe of the package as defaults; flags override them.")


def _file_of_defaults(argv: Sequence[str]) -> Path | None:
    """The file that `--config` or `--recipe` names, or `None`."""
    parser = ArgumentParser([], add_help=False, allow_abbrev=False)
    _add_flags_of_defaults(parser)
    passed, _ = parser.parse_known_args(list(argv))
    if passed.config is not None and passed.recipe is not None:
        raise ValueError(
            f"You passed --config {passed.config} and --recipe {passed.recipe}, but there is one file of defaults. "
            "Pass one of them; flags override what is in it."
        )
    if passed.recipe is not None:
        return find_recipe(passed.recipe)
    return None if passed.config is None else find_config(passed.config)


def _check_all_known(parser: ArgumentParser, argv: Sequence[str], options: Collection[str]) -> None:
    """Raises `ValueError` for words of the command line that are no options."""
    _, unknown = parser.parse_known_args(list(argv))
    if unknown:
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        hints = near_misses(flags or unknown, options)
        raise ValueError(f"The command line has words that are no options: {hints}. See --help for all options.")


# ---- Files of defaults ----


def recipe_names() -> list[str]:
    """Lists the recipes that come with the package.

    Example:
        >>> "tecoa" in recipe_names()
        True
    """
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Finds a recipe of the package by its name, such as `tecoa`; `tecoa.yaml` does too.

    Raises:
        ValueError: for an unknown recipe; the message lists those there are.

    Example:
        >>> find_recipe("tecoa").name
        'tecoa.yaml'
    """
    stem = name.removesuffix(".yaml")
    if stem not in recipe_names():
        raise ValueError(
            f"You passed the recipe {name!r}, which there is not. Choose one of {recipe_names()}, or pass a file of "
            "your own as --config."
        )
    return RECIPES / f"{stem}.yaml"


def find_config(name_or_path: str | os.PathLike) -> Path:
    """Finds a file of defaults: an existing path or, by its bare name, a recipe of the package.

    Raises:
        ValueError: if there is neither; the message lists the recipes.

    Example:
        >>> size = Path("mine.yaml").write_text("eps: 4/255")
        >>> find_config("mine.yaml").name
        'mine.yaml'
    """
    path = Path(name_or_path)
    if path.exists() and not path.is_dir():
        return path
    is_recipe = path.name.removesuffix(".yaml") in recipe_names()
    if is_recipe and path.name == str(name_or_path):
        return find_recipe(path.name)

    if is_recipe and path.parent.name == "configs":
        name = path.name.removesuffix(".yaml")
        raise ValueError(
            f"You passed --config {name_or_path}, which has become the recipe {name!r}. Pass --config {name} or "
            f"--recipe {name}."
        )
    reason = os.strerror(errno.EISDIR if path.is_dir() else errno.ENOENT)
    raise ValueError(
        f"You passed --config {name_or_path}, which cannot be read ({reason}). Pass a YAML file, or one of the "
        f"recipes {recipe_names()}."
    )


def read_options(file: str | os.PathLike, options: Collection[str], flag: str = "--config") -> dict[str, Any]:
    """Reads the values of a YAML file by option, with its placeholders filled in.

    Args:
        file (`str` or `PathLike`): A mapping, whose keys are options.
        options (`list[str]`): Those that it may hold.
        flag (`str`): How the file was passed, for messages.

    Raises:
        ValueError: for a file that cannot be read, is no such mapping, or holds other keys.

    Example:
        >>> size = Path("mine.yaml").write_text("eps: 4/255")
        >>> read_options("mine.yaml", ["eps", "num_steps"])
        {'eps': '4/255'}
    """
    file = Path(file)
    try:
        values = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_EachKeyOnce)  # a SafeLoader
    except OSError as error:
        raise ValueError(
            f"You passed {flag} {file}, which cannot be read ({error.strerror}). Pass a YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"You passed {flag} {file}, which is no YAML ({reason}). Correct it.") from error
    if not isinstance(values, dict):
        raise ValueError(f"You passed {flag} {file}, which holds no `option: value` lines. Write one per option.")

    unknown = sorted(str(key) for key in values if key not in options)
    if unknown:
        hints = near_misses(unknown, options)
        raise ValueError(f"{file} has keys that are no options: {hints}. See --help for all options.")
    return {name: _fill_in(value, str(file.parent)) for name, value in values.items()}


class _EachKeyOnce(yaml.SafeLoader):
    """Reads YAML without objects, and minds a key that stands there twice, of which YAML would take the last."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        if twice:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"the entries from line {line} on hold {', '.join(twice)} twice")
        return super().construct_mapping(node, deep)


def _fill_in(value: Any, folder: str) -> Any:
    """Texts with `{config_dir}` and `{emoji}` replaced: a file can name its neighbours and the embedded default."""
    if isinstance(value, list):
        return [_fill_in(entry, folder) for entry in value]
    if isinstance(value, dict):
        return {key: _fill_in(entry, folder) for key, entry in value.items()}
    if not isinstance(value, str):
        return value

    value = value.replace("{config_dir}", folder)
    if "{emoji}" in value:
        value = value.replace("{emoji}", str(emoji_folder()))
    return value


def _check_method(file: Path, values: Mapping[str, Any], argv: Sequence[str]) -> None:
    """Raises `ValueError` where a flag puts another objective in place of that of a paper's recipe.

    The recipe's optimizer, learning rate and radius would be used for a method that they were not chosen for. Whoever
    passes these, too, knows.
    """
    objective = _passed("objective", argv)
    is_of_a_paper = file.parent == RECIPES and file.stem != DEFAULT_RECIPE
    if not is_of_a_paper or objective in (None, values.get("objective")):
        return
    missing = [name for name in CHOSEN_FOR_METHOD if name in values and _passed(name, argv) is None]
    if not missing:
        return

    recipes = [name for name in recipe_names() if name != DEFAULT_RECIPE and _objective_of(name) == objective]
    instead = f"--recipe {' or '.join(recipes)}" if recipes else f"--recipe {DEFAULT_RECIPE}"
    chosen = ", ".join(f"{name} {values[name]}" for name in missing)
    raise ValueError(
        f"You passed --objective {objective} over the recipe {file.stem}, whose {chosen} were chosen for "
        f"{values.get('objective')}. Pass {instead}, or your own {', '.join(f'--{name}' for name in missing)}."
    )


def _objective_of(recipe: str) -> str | None:
    """The objective that a recipe is chosen for; none of one whose method is the noise on its images."""
    values = yaml.safe_load(find_recipe(recipe).read_text(encoding="utf-8"))
    return None if "noise_sigma" in values else values.get("objective")


def _without_options_of_others(
    values: Mapping[str, Any], argv: Sequence[str], options: Mapping[str, Field]
) -> dict[str, Any]:
    """The file's values without the options of its objective, attack or tuning, where a flag names another one."""
    left_out: list[str] = []
    for name, its_options in OPTIONS_OF.items():
        choice = values.get(name, options[name].default if name in options else None)
        if _passed(name, argv) not in (None, choice):
            left_out += its_options
    return {option: value for option, value in values.items() if option not in left_out}


def _passed(name: str, argv: Sequence[str]) -> str | None:
    """What the command line says for an option, or `None`."""
    parser = ArgumentParser([], add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}")
    passed, _ = parser.parse_known_args(list(argv))
    return getattr(passed, name)


def _is_list_for_a_word(option: Field, value: Any) -> bool:
    return isinstance(value, list) and option.type is str


def _flags(option: Field, value: Any) -> list[str]:
    """An entry of the file as the words that say the same on a command line."""
    if value is None:
        return []
    if typing.get_origin(option.type) is list:
        return [f"--{option.name}", *map(str, value if isinstance(value, list) else [value])]
    if isinstance(value, dict):
        value = json.dumps(value)
    elif isinstance(value, bool):  # YAML 1.1 reads `no` as false, which some options have as a word
        value = "true" if value else "no"
    return [f"--{option.name}={value}"]
