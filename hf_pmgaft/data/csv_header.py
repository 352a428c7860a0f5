"""The first line of a CSV file, which names its columns."""

from __future__ import annotations

import csv
from pathlib import Path

OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def check_csv_header(file: str | Path) -> None:
    """Raises `ValueError` for a CSV file whose first line names no columns, or one column twice.

    Example:
        >>> size = Path("images.csv").write_text("path;label")
        >>> check_csv_header("images.csv")
        Traceback (most recent call last):
        ValueError: images.csv is separated by semicolons. Save it with commas, and texts that hold commas in quotes.
    """
    with Path(file).open("rb") as content:
        line = content.readline()
    try:
        lines = line.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error}). Save it as UTF-8.") from error
    if not lines or not lines[0].strip():
        raise ValueError(f"{file} begins with an empty line. Name the columns in its first line, such as path,label.")

    columns = next(csv.reader(lines, skipinitialspace=True))
    for separator, name in OTHER_SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            raise ValueError(
                f"{file} is separated by {name}. Save it with commas, and texts that hold commas in quotes."
            )
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise ValueError(f"{file} has several columns of the name {repeated[0]!r}. Give each its own.")
