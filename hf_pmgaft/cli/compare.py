"""Compares two reports of one protocol, image by image: by how much the second one's model does better.

    pmgaft compare robustness_before.json robustness.json
    pmgaft compare one.json two.json --ignore versions.torch --format markdown --plots pictures
    pmgaft compare llava_before.json llava.json   # of pmgaft attack-vlm
    pmgaft compare one.json two.json --html page.html

Differences are in points, with 95 % intervals paired by image and McNemar's test. Reports of different protocols are
refused; --ignore names keys of the protocol that may differ.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..downstream.answer_comparison import compare_answers, load_answer_report
from ..evaluation.comparison import compare_reports
from ..evaluation.report import RobustnessReport
from ..evaluation.tables import FORMATS, render
from ..files import check_output_file, check_output_folder, write_whole
from ..short_names import short_names
from .attack_vlm_report import in_words
from .errors import one_line_errors
from .parser import make_parser


def parse(argv: Sequence[str] | None = None, script: str | None = None) -> argparse.Namespace:
    """The options of a command line, by default that of the process."""
    parser = make_parser("compare", __doc__, script)
    parser.add_argument(
        "reports", nargs=2, metavar="REPORT", help="JSON files of `pmgaft evaluate`, or of `pmgaft attack-vlm`."
    )
    parser.add_argument(
        "--ignore", nargs="+", default=[], help="Protocol keys that may differ, such as versions.torch."
    )
    parser.add_argument("--format", default="text", choices=FORMATS, help="How the table is printed.")
    parser.add_argument("--output_file", help="JSON file for the comparison.")
    parser.add_argument("--plots", help="Folder for pictures: bars per set, accuracy against radius, clean against.")
    parser.add_argument("--html", help="HTML file for the comparison as a page to look at.")
    return parser.parse_args(argv)


@one_line_errors()
def main(argv: Sequence[str] | None = None, script: str | None = None) -> None:
    """Compares the reports that a command line names."""
    args = parse(argv, script)
    compare(*args.reports, args.ignore, args.format, args.output_file, args.plots, args.html)


def compare(
    first: str,
    second: str,
    ignore: Sequence[str] = (),
    style: str = "text",
    output_file: str | None = None,
    plots: str | None = None,
    html: str | None = None,
) -> None:
    """Prints by how much the second report's model does better, image by image.

    Args:
        first (`str`), second (`str`): Files of reports.
        ignore (`list[str]`): Keys of the protocol that may differ.
        style (`str`): One of `hf_pmgaft.evaluation.tables.FORMATS`.
        output_file (`str`, *optional*): JSON file for the comparison.
        plots (`str`, *optional*): Folder for pictures.
        html (`str`, *optional*): HTML file for the page.

    Raises:
        ValueError: if the reports follow different protocols, or are of different images or one file, or a place
            cannot be written to.
    """
    check_output_file("--output_file", output_file)
    check_output_file("--html", html)
    check_output_folder("--plots", plots)
    for flag, file in {"--output_file": output_file, "--html": html}.items():
        if file is not None and Path(file).resolve() in (Path(first).resolve(), Path(second).resolve()):
            raise ValueError(
                f"You passed {flag} {file}, which is one of the reports and would be written over. Pass another name."
            )
    if Path(first).resolve() == Path(second).resolve():
        raise ValueError(f"You passed {first} twice, which differs from itself in nothing. Pass two reports.")
    answers = [load_answer_report(name) for name in (first, second)]
    if all(answers):
        if plots:
            raise ValueError("You passed --plots with reports of attack-vlm, of which --html has them. Pass that.")
        comparison = compare_answers(*answers, ignore)
        protocol_hash = answers[0]["protocol_hash"]
    else:
        reports = {name: RobustnessReport.load(name) for name in (first, second)}
        comparison = compare_reports(reports[first], reports[second], ignore)
        protocol_hash = reports[first].protocol_hash

    print(render(comparison.rows(), style))
    print(f"\nProtocol {protocol_hash}; {second} minus {first}, in points.")
    if output_file:
        write_whole(output_file, json.dumps(comparison.to_dict(), indent=1) + "\n")
    if plots:
        draw_reports(reports, Path(plots))
    if html:
        from ..pages import save_answer_comparison_page, save_comparison_page

        names = short_names("report", [first, second])
        if all(answers):
            how = in_words(answers[0]["protocol"])
            save_answer_comparison_page(dict(zip(names, answers, strict=True)), comparison, html, how)
        else:
            save_comparison_page(dict(zip(names, reports.values(), strict=True)), comparison, html)
        print(f"The page is in {html}.")


def draw_reports(reports: Mapping[str, RobustnessReport], folder: Path) -> None:
    """Draws one or several reports: bars, a curve for every norm of a ball, and clean against robust accuracy."""
    from ..plots import report_pictures

    for name, draw in report_pictures(reports).items():
        draw(folder / f"{name}.png")
