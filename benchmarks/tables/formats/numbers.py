"""All numbers for programs: CSV with a number in each line, and JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from benchmarks.tables.table import Document
from pixbench.errors import printable
from pixbench.files import finite

FORMULA = tuple("=+-@\t\r")
"""With these a spreadsheet begins a formula."""


def to_csv(document: Document, full: bool = False) -> str:
    """Return the records; lists become their lengths, and text that a spreadsheet would compute gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*document.records[0]] if document.records else [])
    for record in document.records:
        writer.writerow([_field(value) for value in record.values()])
    return out.getvalue()


def to_json(document: Document, full: bool = False) -> str:
    """Return the records with all deviations, and the runs that are left out."""
    content = {"title": document.title, "records": document.records, "left_out": [*document.left_out]}
    return json.dumps(finite(content), ensure_ascii=False, indent=1) + "\n"


def _field(value: Any) -> Any:
    if isinstance(value, list):
        return len(value)
    if isinstance(value, str):
        text = printable(value)
        return f"'{text}" if value.startswith(FORMULA) else text
    return "" if value is None else value
