"""The options by which `pmgaft evaluate` puts figures into a model card."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from ..evaluation.report import RobustnessReport


def check_card_options(args: argparse.Namespace) -> None:
    """Raises `ValueError` for options that have no effect without --update_card, or cannot be followed."""
    if args.update_card is None:
        idle = {"--push": args.push, "--report": args.report and not args.html, "--benchmarks": args.benchmarks}
        passed = [flag for flag, value in idle.items() if value]
        if passed:
            either = "--update_card or --html" if passed == ["--report"] else "--update_card"
            raise ValueError(f"You passed {', '.join(passed)} without {either}, where it has no effect. Pass both.")
        return
    check_push(args, otherwise="evaluate without --update_card and put the report in afterwards (--report)")
    read_benchmarks(args.benchmarks)


def check_push(args: argparse.Namespace, otherwise: str) -> None:
    """Raises `ValueError` for a card of `--update_card` that cannot be changed; `otherwise` is what may be done."""
    from ..hub.card_update import check_target
    from ..hub.upload import push_error, why_no_push

    check_target(args.update_card, args.push)
    error = push_error(args.update_card) if args.push else None
    if error is not None:
        raise ValueError(
            f"You passed --push for the card of {args.update_card!r}, but {why_no_push(error)}. Nothing was "
            f"evaluated. Run `hf auth login` with a token of the role write, or {otherwise}."
        )


def put_into_card(report: RobustnessReport, args: argparse.Namespace) -> None:
    """Updates the card that a command line names."""
    from ..hub.card_update import update_card

    update_card(args.update_card, report, push=args.push, benchmarks=read_benchmarks(args.benchmarks))
    print(f"The card of {args.update_card} has the figures of protocol {report.protocol_hash}.")


def read_benchmarks(file: str | None) -> dict[str, dict[str, tuple[str, str]]]:
    """Reads which figures are of registered benchmarks; none without a file.

    Raises:
        ValueError: for a file that is no mapping of sets to figures to data set and task.
    """
    if file is None:
        return {}
    from ..hub.results import FIGURES

    try:
        stated = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        benchmarks = {name: {key: tuple(task) for key, task in tasks.items()} for name, tasks in stated.items()}
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is no {{SET: {{FIGURE: [DATASET, TASK]}}}} ({error}). Write it so.") from error
    for name, tasks in benchmarks.items():
        for key, task in tasks.items():
            if key not in FIGURES or len(task) != 2 or not all(isinstance(text, str) for text in task):
                raise ValueError(
                    f"{file} has {key}: {list(task)} for {name!r}. Write one of {', '.join(FIGURES)}, and the ids of "
                    "the data set and its task."
                )
    return benchmarks
