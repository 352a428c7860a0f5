"""Rows of text as tables for the terminal, Markdown, LaTeX or notebooks, and how numbers are written in them."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

from ..registry import check_choice

Rows = list[list[str]]


class Rounded(str):
    """A number as a table shows it, which remembers what it rounds.

    Args:
        text (`str`): Such as `"74.0"`.
        value (`float`): Such as 0.7404.

    Example:
        >>> cell = Rounded("74.0", 0.7404)
        >>> cell, cell.value
        ('74.0', 0.7404)
    """

    value: float

    def __new__(cls, text: str, value: float) -> Rounded:
        cell = super().__new__(cls, text)
        cell.value = value
        return cell


class _Ends(NamedTuple):
    low: Rounded
    high: Rounded


class Span(str):
    """An interval as a table shows it, which remembers its ends.

    Example:
        >>> interval = Span(Rounded("70.0", 0.7), Rounded("78.0", 0.7804))
        >>> interval, interval.ends.high.value
        ('70.0 to 78.0', 0.7804)
    """

    ends: _Ends

    def __new__(cls, low: Rounded, high: Rounded) -> Span:
        cell = super().__new__(cls, f"{low} to {high}")
        cell.ends = _Ends(low, high)
        return cell


def render(rows: Rows, style: str = "text") -> str:
    """Rows, of which the first is the header, as a table in one of `FORMATS`.

    Args:
        rows (list of list of `str`): All of one length.
        style (`str`): `"text"`, aligned for the terminal; `"markdown"`; `"html"`, with the exact numbers
            as the values of `<data>`; or `"latex"`, the rows of a tabular.

    Example:
        >>> print(render([["set", "clean"], ["food", "74.0"]], "markdown"))
        | set | clean |
        |---|---|
        | food | 74.0 |
    """
    check_choice("format", style, FORMATS)
    return _RENDERERS[style](rows)


def percent(value: float | None) -> str:
    """A fraction in percent; nothing if there is none.

    Example:
        >>> percent(0.7404), percent(None)
        ('74.0', '')
    """
    return "" if value is None else _percent(value)


def points(value: float) -> Rounded:
    """A difference of two fractions in points, with its sign.

    Example:
        >>> points(0.031)
        '+3.1'
    """
    return Rounded(f"{100 * value:+.1f}", value)


def span(low: float, high: float) -> Span:
    """An interval of a fraction, in percent.

    Example:
        >>> span(0.7, 0.78)
        '70.0 to 78.0'
    """
    return Span(_percent(low), _percent(high))


def span_of_points(low: float, high: float) -> Span:
    """An interval of a difference, in points.

    Example:
        >>> span_of_points(-0.01, 0.03)
        '-1.0 to +3.0'
    """
    return Span(points(low), points(high))


def _percent(value: float) -> Rounded:
    return Rounded(f"{100 * value:.1f}", value)


def _text(rows: Rows) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        name = row[0].ljust(widths[0])
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([name, *numbers]))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _markdown(rows: Rows) -> str:
    header, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, "|" + "---|" * len(rows[0]), *others])


def _html(rows: Rows) -> str:
    header, *others = rows
    titles = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = [_html_row(row) for row in others]
    return "\n".join([f"<table><thead><tr>{titles}</tr></thead><tbody>", *body, "</tbody></table>"])


def _html_row(row: list[str]) -> str:
    name, *cells = row
    data = "".join(f"<td>{_html_cell(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{data}</tr>'


def _html_cell(cell: str) -> str:
    """A cell, with the exact numbers that it rounds."""
    if isinstance(cell, Span):
        return " to ".join(_html_cell(end) for end in cell.ends)
    if isinstance(cell, Rounded):
        return f'<data value="{float(cell.value)!r}">{escape(cell)}</data>'
    return escape(cell)


def _latex(rows: Rows) -> str:
    return "\n".join(" & ".join(map(_latex_cell, row)) + r" \\" for row in rows)


def _latex_cell(cell: str) -> str:
    escapes = {character: f"\\{character}" for character in "%_&#$"}
    return "".join(escapes.get(character, character) for character in cell)


_RENDERERS = {"text": _text, "markdown": _markdown, "latex": _latex, "html": _html}
FORMATS = tuple(_RENDERERS)
