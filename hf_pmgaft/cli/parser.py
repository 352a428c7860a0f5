"""The parser of a command's options."""

from __future__ import annotations

import argparse


def make_parser(command: str, description: str | None, script: str | None) -> argparse.ArgumentParser:
    """A parser that takes no abbreviations and prints the description as it stands.

    Args:
        command (`str`): The subcommand of `pmgaft`.
        description (`str`): Its own description.
        script (`str`, *optional*): Description of the script that calls it in place of `pmgaft`.
    """
    return argparse.ArgumentParser(
        prog=f"pmgaft {command}" if script is None else None,
        description=description if script is None else script,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
