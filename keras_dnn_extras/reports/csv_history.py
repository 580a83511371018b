"""Files that Keras's `CSVLogger` writes."""

import csv
import io
import pathlib
from typing import Any

from keras_dnn_extras._arguments import counted

_SEPARATORS = ",;\t|"


def read_csv(argument: str, path: pathlib.Path) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the columns of a CSV file by their headings, None where a row has no cell, and notes.

    A heading may come again in the middle, with other columns, as where files were joined.

    Args:
        argument: the name that the caller's argument has.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no text, begins with numbers in place of a heading, or is not separated by commas,
            semicolons, tabs or bars.
    """
    rows = _rows(argument, path)
    _check_heading(argument, path, rows)
    columns: dict[str, list[Any]] = {}
    heading, too_long, count = list[str](), 0, 0
    for row in rows:
        if not heading or _is_heading(row, rows[0]):
            heading = [cell.strip() for cell in row]
            columns |= {name: [None] * count for name in heading if name not in columns}
            continue
        too_long += len(row) > len(heading)
        count += 1
        cells = dict(zip(heading, row, strict=False))
        for name, column in columns.items():
            column.append(cells.get(name))
    notes = [f"{counted(too_long, 'row')} longer than the heading: cells beyond it are left out."]
    return columns, notes if too_long else []


def _check_heading(argument: str, path: pathlib.Path, rows: list[list[str]]) -> None:
    if rows and all(map(_is_number, rows[0])):
        raise ValueError(
            f"Expected `{argument}` to have names in its first line, as `keras.callbacks.CSVLogger` writes "
            f"them: `epoch,loss`. Received: {argument}={str(path)!r}, which begins with {rows[0][:4]}"
        )


def _rows(argument: str, path: pathlib.Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig").lstrip("\r\n")
        separator = _separator(text.split("\n", 1)[0])
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"Expected `{argument}` to be a text file as `keras.callbacks.CSVLogger` writes it. "
            f"Received: {argument}={str(path)!r}, {error}"
        ) from error


def _separator(heading: str) -> str:
    """Return the separator of which the heading has most, outside of quotes or not."""
    return max(_SEPARATORS, key=heading.count)


def _is_heading(row: list[str], first: list[str]) -> bool:
    """Return whether `row` begins as the first one does, and that not with a number."""
    return bool(row) and row[0] == first[0] and not _is_number(row[0])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
