"""What runs now, for a report of a folder that still grows."""

from __future__ import annotations

from benchmarks.report.comparison import TABLES
from benchmarks.report.markup import fill
from benchmarks.report.progress import HEADS, begun, ended
from benchmarks.report.section import Contents, Section
from pixbench.file_versions import RESULT_FILE


def section(contents: Contents) -> Section | None:
    """Return a table of the runs without a result, and the jobs that failed; None without any."""
    lines = [(contents.short(run.folder / RESULT_FILE), *run.cells()[1:]) for run in begun(contents.folders)]
    failed = [*ended(contents.folders)]
    if not lines and not failed:
        return None
    intro = "Runs that have begun and have no result yet, as they were when this page was made."
    return Section(
        "running",
        "In progress",
        intro,
        fill("running.html.j2", heads=HEADS, lines=lines, failed=failed),
        script=TABLES,
    )
