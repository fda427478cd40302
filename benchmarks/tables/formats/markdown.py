"""Tables in Markdown."""

from __future__ import annotations

import re

from tabulate import tabulate

from benchmarks.tables.table import Cell, Document, Table
from pixbench.errors import printable


def to_markdown(document: Document, full: bool = False) -> str:
    """Return the document in GitHub's Markdown."""
    parts = [markdown_table(table, full) for table in document.tables]
    if document.left_out:
        parts.append("## Runs left out\n\n" + "".join(f"- {_line(line)}\n" for line in document.left_out))
    return f"# {_line(document.title)}\n\n" + "\n".join(parts)


def markdown_table(table: Table, full: bool = False) -> str:
    """Return one table with all that stands around it. The best number of a column is bold."""
    intro = " ".join(
        part for part in (f"**{_line(table.warning)}**:" if table.warning else "", _line(table.intro)) if part
    )
    return f"## {_line(table.title)}\n\n" + (f"{intro}\n\n" if intro else "") + with_notes(table, full)


def with_notes(table: Table, full: bool = False) -> str:
    """Return the table with what stands below it."""
    text = f"{grid(table)}\n"
    for heading, lines in [*table.sections, *(table.appendix if full else [])]:
        text += f"\n{heading}:\n\n" + "".join(f"- {_line(line)}\n" for line in lines)
    return text


def grid(table: Table) -> str:
    """Return the table alone."""
    heads = [_cell(": ".join(part for part in (head.group, head.written()) if part)) for head in table.heads]
    body = [[_cell_of(cell, place) for place, cell in enumerate(line)] for line in table.rows]
    return tabulate(body, heads, tablefmt="github", disable_numparse=True)


def _cell_of(cell: Cell, place: int) -> str:
    if not place:
        return _cell(cell.written())
    bold = Cell(**{**cell.__dict__, "text": f"**{cell.text}**"}) if cell.best else cell
    return printable(bold.written())


def _cell(text: str) -> str:
    """Return ``text`` so that it neither ends the cell nor becomes HTML, a link or emphasis; footnotes in brackets stay."""
    text = re.sub(r"([\\|<>*`~&])", r"\\\1", printable(text))
    return text.replace("](", r"]\(")


def _line(text: str) -> str:
    """Return a sentence that may hold a label; its code in backquotes stays."""
    return re.sub(r"([<>|])", r"\\\1", printable(text)).replace("](", r"]\(")
