"""The comparison tables, as `pixbench table` makes them, sortable and filterable."""

from __future__ import annotations

from markupsafe import Markup

from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section
from benchmarks.tables import compared
from benchmarks.tables.table import SYMBOLS, Cell, Document

TABLES = "tables.js"


def section(contents: Contents) -> Section | None:
    """Return the tables of all groups and of the published numbers; None without results of transfer runs."""
    if not contents.groups:
        return None
    document = compared(contents.groups, (), contents.options)
    intro = "A column is a metric of a protocol, and its best number is bold. A heading sorts its table."
    return Section("tables", "Comparison", intro, tables_of(document), script=TABLES)


def tables_of(document: Document) -> Markup:
    """Return the tables of ``document``; a script sorts and filters them."""
    return fill("comparison.html.j2", tables=document.tables, symbols=SYMBOLS, beside=_beside)


def _beside(cell: Cell) -> str:
    """Return what stands beside the number of a cell."""
    return Cell("", cell.interval, "", cell.notes, cell.published).written()
