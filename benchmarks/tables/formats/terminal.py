"""Tables in a terminal, with colours where it has them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from benchmarks.tables.table import SYMBOLS, Cell, Document, Table
from pixbench.errors import printable

COLOURS = {"higher": "green", "lower": "red"}


def show(document: Document, full: bool = False, console: Console | None = None) -> None:
    """Print the document; the best number of a column is bold."""
    console = console or Console()
    for table in document.tables:
        console.print(Text(printable(table.title), "bold"))
        for part in filter(None, (table.warning, table.intro)):
            console.print(Text(printable(part), "bold yellow" if part == table.warning else "dim"))
        console.print(_grid(table))
        for heading, lines in [*table.sections, *(table.appendix if full else [])]:
            console.print(Text(f"{printable(heading)}:", "bold"))
            for line in lines:
                console.print(Text(f"  {printable(line)}", "dim"))
        console.print()
    if document.left_out:
        console.print(Text("Runs left out:", "bold"))
        for line in document.left_out:
            console.print(Text(f"  {printable(line)}"))


def _grid(table: Table) -> Grid:
    grid = Grid()
    for place, head in enumerate(table.heads):
        heading = "\n".join(part for part in (head.group, head.written()) if part)
        grid.add_column(Text(printable(heading)), justify="right" if place else "left")
    for row in table.rows:
        grid.add_row(*map(_cell, row))
    return grid


def _cell(cell: Cell) -> Text:
    text = Text(printable(cell.text), "bold" if cell.best else "")
    if cell.mark:
        text.append(f" {SYMBOLS[cell.mark]}", COLOURS.get(cell.mark, "dim"))
    if rest := Cell("", cell.interval, "", cell.notes, cell.published).written():
        text.append(f" {printable(rest)}", "dim")
    return text
