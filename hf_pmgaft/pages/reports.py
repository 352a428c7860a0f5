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
from ..data.evaluation_sets import ZeroShotDataset
from ..evaluation.comparison import Comparison
from ..evaluation.report import RobustnessReport, SetResult
from ..evaluation.tables import Rows, percent, render, span
from ..files import write_whole
from .disagreements import shown_disagreements
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
    write_whole(file, report_page(report, name))


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
    write_whole(file, comparison_page(reports, comparison))


def report_page(report: RobustnessReport, name: str) -> str:
    """The page of a report; see [`save_report_page`].

    Example:
        >>> report = RobustnessReport({"attacks": [], "headline": "linf 4/255", "verdict": "any iterate"}, [])
        >>> report.sets = [SetResult("food", 10, 150, 0.74, 0.43, {}, threats={"linf 4/255": 0.43})]
        >>> report.protocol["attacks"] = [{"attack": "fgsm", "eps": "4/255", "norm": "linf", "loss": "ce"}]
        >>> "74.0 % without an attack, and 43.0 % under FGSM" in report_page(report, "tiny CLIP")
        True
    """
    examples = [(example, picture_of(example)) for example in report.examples]
    return _render(
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


def comparison_page(
    reports: Mapping[str, RobustnessReport],
    comparison: Comparison,
    key: str = "robust",
    sets: Mapping[str, ZeroShotDataset] | None = None,
) -> str:
    """The page of two reports that are compared; see [`save_comparison_page`].

    Args:
        reports (`dict` of `RobustnessReport`), comparison (`Comparison`): The two, by name, and what they differ in.
        key (`str`): Under what the page says which images one model alone has right: `"clean"`, `"robust"`, or the
            name of an attack.
        sets (`dict` of `ZeroShotDataset`, *optional*): By name those that are at hand, from which it shows images.

    Raises:
        ValueError: if the reports have no such key.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, compare_reports, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> page = comparison_page({"before": report, "after": report}, compare_reports(report, report), "clean")
        >>> "Images that one model alone has right" in page
        True
    """
    first, second = reports
    return _render(
        "comparison.html",
        title=f"{first} and {second}",
        summary=comparison_summary(first, second, comparison),
        reports=reports,
        comparison=comparison,
        under=_under(key, reports[first]),
        disagreements=shown_disagreements(reports, key, sets),
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


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(version=__version__, **values) + "\n"


def _under(key: str, report: RobustnessReport) -> str:
    """Under what images are right or wrong, in words."""
    if key == "clean":
        return "without an attack"
    if key == "robust":
        return f"in the worst case under {' and '.join(spec.name for spec in report.headline_attacks)}"
    return f"after {key}"


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
