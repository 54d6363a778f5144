"""Results on stdout: tables for people, one JSON value for machines."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table


def print_result(values: dict[str, Any], as_json: bool) -> None:
    """One JSON value, or a two-column table."""
    if as_json:
        print(json.dumps(values, default=str))
        return
    table = Table(show_header=False)
    for name, value in values.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)


def print_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table, or nothing where it has no rows; long cells wrap. `right`: the columns to align right."""
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_frame(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the rows' columns: numbers with their thousands apart, shares (columns named so) in per cent."""
    columns = list(rows[0]) if rows else []
    numbers = [name for name in columns if any(isinstance(row[name], int | float) for row in rows)]
    cells = [[_cell(name, row[name]) for name in columns] for row in rows]
    print_rows(title, [name.replace("_", " ") for name in columns], cells, [name.replace("_", " ") for name in numbers])


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.2%}" if name.endswith("share") else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
