"""Reports and comparisons as tables for the terminal, Markdown, LaTeX or notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..attacks.spec import Spec, norm_of, threat_name
from .intervals import wilson_interval

if TYPE_CHECKING:
    from .report import Comparison, RobustnessReport

FORMATS = ("text", "markdown", "latex", "html")
Rows = list[list[str]]


def report_rows(report: RobustnessReport) -> Rows:
    """A row per set: classes, images, clean accuracy, the headline with its 95 % interval, then other radii.

    Of retrieval a row per recall, candidates and queries in place of classes and images; then means over sets.
    """
    headline, norm = report.protocol["headline"], norm_of(report.headline_attacks[0])
    balls = dict.fromkeys(threat_name(spec) for spec in report.protocol["attacks"] if norm_of(spec) == norm)
    threats = [headline, *(name for name in balls if name != headline and norm)]
    rounded = report.sets[0].robust_8bit_accuracy is not None
    counted = ["classes", "images"] if "accuracy" in report.figures else ["candidates", "queries"]
    header = ["set", *counted, "clean", f"robust {headline}", "95 %"]
    rows = [header + ["8 bit"] * rounded + threats[1:]]
    for result in report.sets:
        counts = [result.name, str(result.num_classes), str(result.num_samples), _percent(result.clean_accuracy)]
        eight_bit = [_percent(result.robust_8bit_accuracy)] if rounded else []
        first, *others = (_percent(result.threats[name]) for name in threats)
        rows.append([*counts, first, _span(*wilson_interval(result.robust_accuracy, result.num_samples))])
        rows[-1] += eight_bit + others
    for figure in report.figures:
        part = report.of(figure)
        if figure != "accuracy" and len(part.sets) == 1:
            continue
        first, *others = (_percent(part.mean_threat(name)) for name in threats)
        eight_bit = [_percent(part.mean("robust_8bit_accuracy"))] if rounded else []
        name = "mean of sets" if figure == "accuracy" else f"mean {figure}"
        rows.append([name, "", "", _percent(part.mean_clean_accuracy), first, "", *eight_bit, *others])
    return rows


def attack_rows(report: RobustnessReport) -> Rows:
    """A row per attack but corruptions, and figure of retrieval: the mean over the sets on which it ran of what stands
    after it."""
    corrupted = {threat_name(spec) for spec in _corruptions(report)}
    rows = [["attack", "sets", "standing"]]
    for figure in report.figures:
        sets = report.of(figure).sets
        for name in dict.fromkeys(name for result in sets for name in result.attacks if name not in corrupted):
            values = [result.attacks[name] for result in sets if name in result.attacks]
            shown = name if figure == "accuracy" else f"{figure}: {name}"
            rows.append([shown, str(len(values)), _percent(sum(values) / len(values))])
    return rows


def corruption_rows(report: RobustnessReport) -> Rows:
    """A row per kind of corruption: accuracy at each severity, means over sets. No rows if there is none."""
    specs = _corruptions(report)
    if not specs:
        return []
    severities = sorted({spec["severity"] for spec in specs})
    rows = [["corruption", *(f"severity {severity}" for severity in severities)]]
    for kind in dict.fromkeys(spec["kind"] for spec in specs):
        names = {spec["severity"]: threat_name(spec) for spec in specs if spec["kind"] == kind}
        rows.append([kind, *(_percent(report.mean_threat(names[s])) if s in names else "" for s in severities)])
    return rows


def comparison_rows(comparison: Comparison) -> Rows:
    """A row per set and figure: difference in points, 95 % interval, images gained and lost, McNemar's p."""
    rows = [["set", "figure", "difference", "95 %", "gained", "lost", "p"]]
    for name, figures in comparison.sets.items():
        for key, pair in figures.items():
            counts = [str(pair.gained), str(pair.lost), f"{pair.p_value:.2g}"]
            rows.append([name, key, _points(pair.difference), _span(*pair.interval, signed=True), *counts])
    for key, (mean, low, high) in comparison.means.items():
        rows.append(["mean of sets", key, _points(mean), _span(low, high, signed=True), "", "", ""])
    return rows


def render(rows: Rows, style: str = "text") -> str:
    """Rows, of which the first is the header, as aligned text, a Markdown or HTML table or the rows of a LaTeX one."""
    if style == "latex":
        return "\n".join(" & ".join(map(_latex, row)) + r" \\" for row in rows)
    if style == "html":
        tags = ["th", *["td"] * (len(rows) - 1)]
        lines = [
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)
        ]
        return "\n".join(["<table>", *(f"<tr>{line}</tr>" for line in lines), "</table>"])
    if style == "markdown":
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _corruptions(report: RobustnessReport) -> list[Spec]:
    return [spec for spec in report.protocol["attacks"] if spec["attack"] == "corruption"]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _span(low: float, high: float, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def _latex(cell: str) -> str:
    escapes = {character: f"\\{character}" for character in "%_&#$"}
    return "".join(escapes.get(character, character) for character in cell)
