"""Tables on a terminal or in a file, of which no cell is cut.

Where the output is no terminal, a table is as wide as it needs to be. On a terminal that is too
narrow for it, intervals go below their values, then the frame goes, then whole columns from the
right, which a line below the table names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNLIMITED = 100_000
_WRAPPED = 24
"""Widest column of free text on a narrow terminal."""

Cell = str | tuple[str, str]
"""A value, or a value and what qualifies it: its interval, its error."""


@dataclass(frozen=True)
class Column:
    """A column; `text` is aligned to the left, free text may wrap."""

    name: str
    text: bool = False
    free: bool = False


@dataclass(frozen=True)
class TextTable:
    """A table of text; the columns that matter most come first."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class _Layout:
    num_columns: int
    stacked: bool = False
    framed: bool = True


def print_table(table: TextTable) -> None:
    """Print `table` to the output stream in the first layout that fits."""
    console = _console()
    limit = console.options.update(max_width=_UNLIMITED)
    for layout in _layouts(len(table.columns)):
        built = _built(table, layout)
        if console.measure(built, options=limit).maximum <= console.width:
            break
    console.print(built)
    hidden = [column.name for column in table.columns[layout.num_columns :]]
    if hidden:
        print_line(
            f"not shown on {console.width} columns: {', '.join(hidden)} (a wider terminal or a "
            "file shows them)"
        )


def print_line(text: str) -> None:
    """Print a line of plain text; a terminal wraps it, nothing else does."""
    from rich.text import Text

    _console().print(Text(text), soft_wrap=True)


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    if not console.file.isatty():
        console.width = _UNLIMITED
    return console


def _layouts(num_columns: int) -> Iterator[_Layout]:
    yield _Layout(num_columns)
    yield _Layout(num_columns, stacked=True)
    for kept in range(num_columns, 1, -1):
        yield _Layout(kept, stacked=True, framed=False)


def _built(table: TextTable, layout: _Layout) -> "Table":
    from rich.table import Table
    from rich.text import Text

    built = Table(title=Text(table.title, style="table.title") if table.title else None)
    if not layout.framed:
        built.box, built.pad_edge = None, False
    for column in table.columns[: layout.num_columns]:
        built.add_column(
            Text(column.name),
            justify="left" if column.text else "right",
            overflow="fold",
            max_width=_WRAPPED if column.free and layout.stacked else None,
        )
    between = "\n" if layout.stacked else " "
    for row in table.rows:
        cells = (cell if isinstance(cell, str) else between.join(cell) for cell in row)
        built.add_row(*(Text(cell) for cell in list(cells)[: layout.num_columns]))
    return built
