"""All numbers for programs: CSV with a number in each line, and JSON."""

from __future__ import annotations

import csv
import io
import json

from benchmarks.spreadsheet import field
from benchmarks.tables.table import Document
from pixbench.files import finite


def to_csv(document: Document, full: bool = False) -> str:
    """Return the records; lists become their lengths, and text that a spreadsheet would compute gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*document.records[0]] if document.records else [])
    for record in document.records:
        writer.writerow([field(value) for value in record.values()])
    return out.getvalue()


def to_json(document: Document, full: bool = False) -> str:
    """Return the records with all deviations, and the runs that are left out."""
    content = {"title": document.title, "records": document.records, "left_out": [*document.left_out]}
    return json.dumps(finite(content), ensure_ascii=False, indent=1) + "\n"
