"""The comparison tables, as `pixbench table` makes them, sortable and filterable."""

from __future__ import annotations

from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section
from benchmarks.tables import compared
from benchmarks.tables.table import SYMBOLS, Cell


def section(contents: Contents) -> Section | None:
    """Return the tables of all groups and of the published numbers; None without results of transfer runs."""
    if not contents.groups:
        return None
    document = compared(contents.groups, (), contents.options)
    intro = (
        "Mean over the seeds ± standard deviation, [95 % interval]. ↑ and ↓ mark a significant difference from the baseline, "
        "≈ one within noise, ? too few seeds to say. A heading sorts its table."
    )
    body = fill("comparison.html.j2", tables=document.tables, symbols=SYMBOLS, beside=_beside)
    return Section("tables", "Comparison", intro, body, script="tables.js")


def _beside(cell: Cell) -> str:
    """Return what stands beside the number of a cell."""
    return Cell("", cell.interval, "", cell.notes, cell.published).written()
