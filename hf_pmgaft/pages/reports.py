"""Pages of one report, and of two that are compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from ..evaluation.comparison import Comparison
from ..evaluation.report import RobustnessReport, SetResult
from ..evaluation.tables import Rows, percent, render, span
from ..files import write_whole
from .pictures import charts_of, picture_of
from .words import comparison_summary, flags_in_words, summary


def save_report_page(report: RobustnessReport, file: str | os.PathLike, name: str) -> None:
    """Writes a report as one HTML file without links to anything outside.

    It has the report in a sentence, tables with intervals, pictures, flags in plain words, `report.examples`, and the
    whole protocol. Every number of a table is a `<data>` with the exact value.

    Args:
        report (`RobustnessReport`): Measured, or read from its JSON, which holds no examples.
        file (`str` or `PathLike`): Where the page goes, whole or not at all.
        name (`str`): Of the model.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False, examples=4)
        >>> save_report_page(report, "report.html", name="tiny CLIP")
        >>> open("report.html").readline()
        '<!doctype html>\\n'
    """
    examples = [(example, picture_of(example)) for example in report.examples]
    _save(
        file,
        "report.html",
        title=f"How robust is {name}?",
        summary=summary(name, report),
        report=report,
        flags=flags_in_words(report),
        charts=charts_of({name: report}),
        fell=[pair for pair in examples if pair[0].fell],
        stood=[pair for pair in examples if not pair[0].fell],
        is_segmented=any(example.masks is not None for example in report.examples),
    )


def save_comparison_page(
    reports: Mapping[str, RobustnessReport], comparison: Comparison, file: str | os.PathLike
) -> None:
    """Writes two reports and their paired differences as one HTML file; see [`save_report_page`].

    Args:
        reports (`dict` of `RobustnessReport`): The two, by name, in the order in which they were compared.
        comparison (`Comparison`): What `compare_reports` gave of them.
        file (`str` or `PathLike`): Where the page goes, whole or not at all.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, compare_reports, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> save_comparison_page({"before": report, "after": report}, compare_reports(report, report), "both.html")
    """
    first, second = reports
    _save(
        file,
        "comparison.html",
        title=f"{first} and {second}",
        summary=comparison_summary(first, second, comparison),
        reports=reports,
        comparison=comparison,
        flags={name: flags_in_words(report) for name, report in reports.items()},
        charts=charts_of(reports),
    )


def rows_of_set(result: SetResult, headline: str) -> Rows:
    """A set's figures with their 95 % intervals: without an attack, by threat, and after each attack.

    Example:
        >>> result = SetResult("food", 10, 150, 0.74, 0.43, {}, threats={"linf 4/255": 0.43})
        >>> rows_of_set(result, "linf 4/255")[1]
        ['without an attack', '74.0', '66.4 to 80.4']
    """
    titles = {"clean": "without an attack"}
    titles |= {threat: f"worst case, {threat}" for threat in result.threats}
    titles |= {name: f"after {name}" for name in result.attacks if name not in result.threats}
    rows = [["under", f"{result.figure.title} in %", "95 %"]]
    rows += [[title, percent(result.value(key)), span(*result.interval(key))] for key, title in titles.items()]
    if result.robust_8bit_accuracy is not None:
        rows.append([f"worst case, {headline}, rounded to 8 bits", percent(result.robust_8bit_accuracy), ""])
    return rows


# ---- Templates ----


def _save(file: str | os.PathLike, template: str, **values: Any) -> None:
    write_whole(file, _templates().get_template(template).render(version=__version__, **values) + "\n")


@cache
def _templates() -> Environment:
    """Templates that write whatever they are given as text, but for tables."""
    environment = Environment(
        loader=PackageLoader("hf_pmgaft.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["table"] = lambda rows: Markup(render(rows, "html"))
    environment.filters["json"] = lambda value: json.dumps(value, indent=1)
    environment.globals["rows_of_set"] = rows_of_set
    return environment
