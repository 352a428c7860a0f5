"""Tables in every format."""

import numpy as np
import pytest

from hf_pmgaft.evaluation.tables import FORMATS, percent, points, render, span, span_of_points

ROWS = [["set", "clean"], ["food & <drink>", "74.0"], ["pets_100%", ""]]


def test_text_is_aligned_by_column():
    assert render(ROWS).splitlines() == [
        "set             clean",
        "---------------------",
        "food & <drink>   74.0",
        "pets_100%            ",
    ]


def test_markdown_has_a_line_below_the_header():
    assert render(ROWS, "markdown").splitlines()[:3] == ["| set | clean |", "|---|---|", "| food & <drink> | 74.0 |"]


def test_html_has_header_cells_and_names_are_no_markup():
    header, food, _ = render(ROWS, "html").splitlines()[:3]
    assert header == '<table><thead><tr><th scope="col">set</th><th scope="col">clean</th></tr></thead><tbody>'
    assert food == '<tr><th scope="row">food &amp; &lt;drink&gt;</th><td>74.0</td></tr>'


def test_html_has_the_exact_numbers():
    row = ["food", percent(0.123456789012345678), span(1 / 3, np.float64(2 / 3)), points(-0.0125)]
    assert render([ROWS[0], row], "html").splitlines()[1] == (
        '<tr><th scope="row">food</th><td><data value="0.12345678901234568">12.3</data></td>'
        '<td><data value="0.3333333333333333">33.3</data> to <data value="0.6666666666666666">66.7</data></td>'
        '<td><data value="-0.0125">-1.2</data></td></tr>'
    )


def test_latex_escapes_its_own_signs():
    assert render(ROWS, "latex").splitlines() == [
        r"set & clean \\",
        r"food \& <drink> & 74.0 \\",
        r"pets\_100\% &  \\",
    ]


def test_a_format_must_be_known():
    assert FORMATS == ("text", "markdown", "latex", "html")
    with pytest.raises(ValueError, match="no format 'word'.*markdown"):
        render(ROWS, "word")


def test_numbers_are_written_in_percent_and_points():
    assert [percent(0.7349), percent(None), points(0.012), points(-0.5)] == ["73.5", "", "+1.2", "-50.0"]
    assert [span(0.1, 0.25), span_of_points(-0.01, 0.02)] == ["10.0 to 25.0", "-1.0 to +2.0"]
