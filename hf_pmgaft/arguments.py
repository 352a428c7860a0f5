"""Command lines with YAML defaults."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from .embedded import emoji_folder

RECIPES = Path(__file__).parent / "recipes"


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


def parse_args(
    dataclass_types: Sequence[type],
    argv: Sequence[str] | None = None,
    description: str | None = None,
    prog: str | None = None,
    groups: Mapping[str, Collection[str]] | None = None,
):
    """Parses a command line into dataclasses; `--config FILE` and `--recipe NAME` set defaults that flags override.

    Unknown and abbreviated keys are refused, in the file as on the command line. `{config_dir}` in the file stands for
    its folder, `{emoji}` for that of the embedded model and sets, and `null` for an option that is not given. A flag
    that names another objective or attack than the file drops the file's options of that one.

    Returns:
        `tuple`: One instance per dataclass.

    Raises:
        ValueError: for an unknown option or a value of the wrong kind.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    formatter = argparse.RawDescriptionHelpFormatter
    parser = ArgumentParser(
        dataclass_types,
        groups=groups,
        prog=prog,
        usage="%(prog)s [options]",  # whose list would be longer than a screen
        description=description,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file or recipe of defaults, which flags override.")
    parser.add_argument("--recipe", metavar="NAME", help="Recipe of defaults, one of `pmgaft recipes`.")
    config = ArgumentParser([], add_help=False, allow_abbrev=False)
    config.add_argument("--config")
    config.add_argument("--recipe", dest="config")
    known = {entry.name: entry for cls in dataclass_types for entry in fields(cls) if entry.init}
    file = config.parse_known_args(argv)[0].config
    if file is not None:
        values = _without_options_of_others(_read_yaml(str(find_config(file)), known), argv)
        # A list for an option that is one word on the command line (`report_to`) cannot be written as a flag.
        lists = {key: value for key, value in values.items() if isinstance(value, list) and known[key].type is str}
        parser.set_defaults(**lists)
        argv = [flag for key, value in values.items() if key not in lists for flag in _flags(known[key], value)] + argv
    unknown = parser.parse_known_args(argv)[1]
    if unknown:
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")] or unknown
        raise ValueError(f"The command line has what are no options: {_near_misses(names, known)}.")
    *parsed, _ = parser.parse_args_into_dataclasses(args=argv, look_for_args_file=False)
    return tuple(parsed)


def find_config(name_or_path: str) -> Path:
    """The YAML file of a recipe's name, or of a path.

    Raises:
        ValueError: if there is neither.
    """
    path, recipe = Path(name_or_path), RECIPES / f"{Path(name_or_path).stem}.yaml"
    if path.is_file() or path.suffix not in ("", ".yaml"):
        return path
    if name_or_path == recipe.stem and recipe.is_file():
        return recipe
    if recipe.is_file():
        raise ValueError(
            f"You passed --config {name_or_path}, which has become a recipe of the package. "
            f"Pass --recipe {recipe.stem}."
        )
    if path.suffix:
        return path  # which cannot be read, and says so
    known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
    raise ValueError(f"You passed --config {name_or_path}, which is no recipe. Choose one of {known}, or pass a file.")


def _read_yaml(file: str, known: Collection[str]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(
            f"You passed --config {file}, which cannot be read ({error.strerror}). Pass a YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"You passed --config {file}, which is no YAML ({error}). Correct it.") from error
    if not isinstance(values, dict):
        raise ValueError(f"You passed --config {file}, which holds no `option: value` lines. Write one per option.")
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ValueError(f"{file} has keys that are no options: {_near_misses(unknown, known)}.")
    return _resolve(values, str(Path(file).parent))


def _without_options_of_others(values: dict[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    kept = dict(values)
    for name in ("objective", "attack"):
        flag = ArgumentParser([], add_help=False, allow_abbrev=False)
        flag.add_argument(f"--{name}")
        named = getattr(flag.parse_known_args(list(argv))[0], name)
        if named is not None and named != values.get(name):
            kept.pop(f"{name}_kwargs", None)
    return kept


def _near_misses(unknown: Sequence[str], known: Collection[str]) -> str:
    near = {key: difflib.get_close_matches(key.lstrip("-").replace("-", "_"), known, 1) for key in unknown}
    hints = ", ".join(f"{key} (did you mean {match[0]}?)" if match else key for key, match in near.items())
    return f"{hints}. See --help for all options"


def _flags(option: Field, value: Any) -> list[str]:
    """An entry of the file as the flags that say the same, so that both are checked by the same parser."""
    if value is None:
        return []
    if typing.get_origin(option.type) is list:
        return [f"--{option.name}", *map(str, value if isinstance(value, list) else [value])]
    if isinstance(value, dict):
        value = json.dumps(value)
    elif isinstance(value, bool):  # YAML 1.1 reads `no` as false, which some options have as a word
        value = "true" if value else "no"
    return [f"--{option.name}={value}"]


def _resolve(value: Any, folder: str) -> Any:
    """Text with `{config_dir}` replaced by the file's own folder, so that a file can name its neighbours."""
    if isinstance(value, list):
        return [_resolve(entry, folder) for entry in value]
    if isinstance(value, dict):
        return {key: _resolve(entry, folder) for key, entry in value.items()}
    if not isinstance(value, str):
        return value
    if "{emoji}" in value:
        value = value.replace("{emoji}", str(emoji_folder()))
    return value.replace("{config_dir}", folder)
