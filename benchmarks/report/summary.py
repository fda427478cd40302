"""The head of the report: what is in it."""

from __future__ import annotations

from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section


def section(contents: Contents) -> Section:
    """Return how many results there are, of what. Without any, what to run first."""
    return Section("summary", "Summary", "What this report is made from.", fill("summary.html.j2", contents=contents))
