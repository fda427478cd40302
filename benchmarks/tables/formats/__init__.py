"""The formats of tables. Each takes a `benchmarks.tables.table.Document` and returns text; labels come from files of others."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.tables.formats.html import to_html
from benchmarks.tables.formats.latex import to_latex
from benchmarks.tables.formats.markdown import to_markdown
from benchmarks.tables.formats.numbers import to_csv, to_json
from benchmarks.tables.table import Document

FILES: dict[str, Callable[[Document, bool], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "tex": to_latex,
    "html": to_html,
    "json": to_json,
}
"""Ending of a file -> what writes it. The second argument is whether all deviations are listed word by word."""
