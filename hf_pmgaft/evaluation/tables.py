"""Rows of text as tables for the terminal, Markdown, LaTeX or notebooks, and how numbers are written in them."""

from __future__ import annotations

from html import escape

from ..registry import check_choice

Rows = list[list[str]]


def render(rows: Rows, style: str = "text") -> str:
    """Rows, of which the first is the header, as a table in one of `FORMATS`.

    Args:
        rows (list of list of `str`): All of one length.
        style (`str`): `"text"`, aligned for the terminal; `"markdown"`; `"html"`; or `"latex"`, the rows of a tabular.

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
    return "" if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of two fractions in points, with its sign.

    Example:
        >>> points(0.031)
        '+3.1'
    """
    return f"{100 * value:+.1f}"


def span(low: float, high: float) -> str:
    """An interval of a fraction, in percent.

    Example:
        >>> span(0.7, 0.78)
        '70.0 to 78.0'
    """
    return f"{percent(low)} to {percent(high)}"


def span_of_points(low: float, high: float) -> str:
    """An interval of a difference, in points.

    Example:
        >>> span_of_points(-0.01, 0.03)
        '-1.0 to +3.0'
    """
    return f"{points(low)} to {points(high)}"


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
    lines = [_html_row(header, "th"), *(_html_row(row, "td") for row in others)]
    return "\n".join(["<table>", *lines, "</table>"])


def _html_row(row: list[str], tag: str) -> str:
    cells = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
    return f"<tr>{cells}</tr>"


def _latex(rows: Rows) -> str:
    return "\n".join(" & ".join(map(_latex_cell, row)) + r" \\" for row in rows)


def _latex_cell(cell: str) -> str:
    escapes = {character: f"\\{character}" for character in "%_&#$"}
    return "".join(escapes.get(character, character) for character in cell)


_RENDERERS = {"text": _text, "markdown": _markdown, "latex": _latex, "html": _html}
FORMATS = tuple(_RENDERERS)
