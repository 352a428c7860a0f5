"""Pages of one report, and of several that are compared."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..data.evaluation_sets import ZeroShotDataset
from ..evaluation.comparison import Comparison
from ..evaluation.report import RobustnessReport, SetResult
from ..evaluation.tables import Rows, percent, span
from ..files import write_whole
from .disagreements import shown_disagreements
from .pictures import charts_of, picture_of
from .rendering import render_page
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
    """Writes reports and the paired differences of the first two as one HTML file; see [`save_report_page`].

    Args:
        reports (`dict` of `RobustnessReport`): Two or more of one protocol, by name.
        comparison (`Comparison`): What `compare_reports` gave of the first two, in this order.
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
    return render_page(
        "report.html",
        title=f"How robust is {name}?",
        summary=summary(name, report),
        report=report,
        flags=flags_in_words(report),
        charts=charts_of({name: report}),
        fell=[pair for pair in examples if pair[0].fell],
        stood=[pair for pair in examples if not pair[0].fell],
        is_segmented=any(example.masks is not None for example in report.examples),
        rows_of_set=rows_of_set,
    )


def comparison_page(
    reports: Mapping[str, RobustnessReport],
    comparison: Comparison,
    key: str = "robust",
    sets: Mapping[str, ZeroShotDataset] | None = None,
    pair: tuple[str, str] | None = None,
) -> str:
    """The page of two reports that are compared; see [`save_comparison_page`].

    Of more reports it has all figures in one table and one set of pictures, and compares two of them.

    Args:
        reports (`dict` of `RobustnessReport`): Two or more of one protocol, by name.
        comparison (`Comparison`): What `compare_reports` gave of the two.
        key (`str`): Under what the page says which images one model alone has right: `"clean"`, `"robust"`, or the
            name of an attack.
        sets (`dict` of `ZeroShotDataset`, *optional*): By name those that are at hand, from which it shows images.
        pair (`tuple[str, str]`, *optional*): The names of the two; the first ones if not given.

    Raises:
        ValueError: if the reports have no such key, or are of different sets or attacks.

    Example:
        >>> from hf_pmgaft import ZeroShotDataset, compare_reports, evaluate_robustness
        >>> food = ZeroShotDataset(dataset, processor, name="food")
        >>> report = evaluate_robustness(model, processor, [food], ["fgsm,eps=4/255"], progress=False)
        >>> page = comparison_page({"before": report, "after": report}, compare_reports(report, report), "clean")
        >>> "Images that one model alone has right" in page
        True
    """
    *others, last = reports
    first, second = pair or (*others, last)[:2]
    return render_page(
        "comparison.html",
        charts=charts_of(reports),  # which says what is wrong with reports of different sets
        title=f"{', '.join(others)} and {last}",
        summary=comparison_summary(first, second, comparison),
        summaries=[summary(name, report) for name, report in reports.items()] if len(reports) > 2 else [],
        reports=reports,
        pair=(first, second),
        comparison=comparison,
        under=_under(key, reports[first]),
        disagreements=shown_disagreements({first: reports[first], second: reports[second]}, key, sets),
        flags={name: flags_in_words(report) for name, report in reports.items()},
        rows_of_reports=rows_of_reports,
    )


def rows_of_reports(reports: Mapping[str, RobustnessReport]) -> Rows:
    """Figures of several reports side by side, with their 95 % intervals: of each set, clean and under the headline.

    Example:
        >>> report = RobustnessReport({}, [SetResult("food", 10, 150, 0.74, 0.43, {})])
        >>> rows_of_reports({"a": report, "b": report})[:2]
        [['set', 'under', 'a', '95 %', 'b', '95 %'], ['food', 'clean', '74.0', '66.4 to 80.4', '74.0', '66.4 to 80.4']]
    """
    rows = [["set", "under", *(title for name in reports for title in (name, "95 %"))]]
    for results in zip(*(report.sets for report in reports.values()), strict=True):
        for key in ("clean", "robust"):
            cells = [(percent(result.value(key)), span(*result.interval(key))) for result in results]
            rows.append([results[0].name, key, *(cell for pair in cells for cell in pair)])
    for key in ("clean", "robust"):
        means = [percent(report.mean(f"{key}_accuracy")) for report in reports.values()]
        rows.append(["mean of sets", key, *(cell for mean in means for cell in (mean, ""))])
    return rows


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


def _under(key: str, report: RobustnessReport) -> str:
    """Under what images are right or wrong, in words."""
    if key == "clean":
        return "without an attack"
    if key == "robust":
        return f"in the worst case under {' and '.join(spec.name for spec in report.headline_attacks)}"
    return f"after {key}"
