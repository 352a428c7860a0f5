"""The parser of a command's options."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from ..registry import near_misses


class Parser(argparse.ArgumentParser):
    """A parser that reads `--num-images` as `--num_images`, and says which option was meant by one that there is not.

    Example:
        >>> parser = Parser()
        >>> _ = parser.add_argument("--num_images", type=int)
        >>> parser.parse_args(["--num-images", "4"]).num_images
        4
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if args is not None:
            args = [self._with_underscores(word) for word in args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            words = message.removeprefix(prefix).split()
            flags = [word.partition("=")[0] for word in words if word.startswith("-")]
            names = [option.lstrip("-") for option in self._option_string_actions]
            message = f"{prefix}{near_misses(flags or words, names)}"
        super().error(message)

    def _with_underscores(self, word: str) -> str:
        flag, mark, value = word.partition("=")
        known = re.sub(r"(?<=\w)-", "_", flag)
        return known + mark + value if known in self._option_string_actions else word


def make_parser(command: str, description: str | None, script: str | None) -> argparse.ArgumentParser:
    """A parser that takes no abbreviations and prints the description as it stands.

    Args:
        command (`str`): The subcommand of `pmgaft`.
        description (`str`): Its own description.
        script (`str`, *optional*): Description of the script that calls it in place of `pmgaft`.
    """
    return Parser(
        prog=f"pmgaft {command}" if script is None else None,
        description=description if script is None else script,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_model_options(parser: Any, otherwise: str) -> None:
    """Adds what names one model to a parser or group: `--model`, and what a checkpoint of others may lack.

    Args:
        parser (`argparse.ArgumentParser` or group): Changed in place.
        otherwise (`str`): What happens without `--model`, for its help.
    """
    parser.add_argument("--model", help=f"Hub id, folder or file of weights of a CLIP; {otherwise}.")
    parser.add_argument("--processor", help="Hub id or folder of the processor, where the model has none.")
    parser.add_argument("--base", help="What --model was trained from, where that holds weights alone or one tower.")
    parser.add_argument("--revision", help="Branch, tag or commit of --model on the Hub; its newest if absent.")


def add_base_options(parser: Any, flag: str) -> None:
    """Adds what those of several models may lack that others published.

    Args:
        parser (`argparse.ArgumentParser` or group): Changed in place.
        flag (`str`): Which names the models, for the help.
    """
    parser.add_argument("--processor", help=f"Hub id or folder of a processor for those of {flag} that have none.")
    parser.add_argument("--base", help=f"What those of {flag} were trained from that hold weights alone or one tower.")
