"""The head of the report: what it is made from, and what had to be left out."""

from __future__ import annotations

from collections import Counter

from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section
from transfer.protocols import KINDS

FIRST = (
    "pixbench suite configs/suites/demo.yaml --out demo",
    "pixbench report demo -o report.html",
)
"""What to run first if there are no results."""


def section(contents: Contents) -> Section:
    """Return how many results there are, of what, and which are left out. Without any, what to run first."""
    runs = contents.results.found
    tasks = {task for group in contents.groups for task in group.tasks()}
    failed = sum(result["status"] != "ok" for _, result in runs)
    counts = Counter(result["kind"] for _, result in runs if result["status"] == "ok")
    facts = [
        (len(contents.labels), "rows"),
        (len({task.protocol for task in tasks}), "protocols"),
        (counts["pretrain"], "pre-training runs"),
        *((counts[kind], f"{words} runs") for kind, words in KINDS.items()),
        (failed, "failed runs"),
        (len(contents.results.left_out), "unusable files"),
    ]
    scales = dict.fromkeys(group.scale for group in contents.groups)
    body = fill(
        "summary.html.j2",
        facts=[(number, words.removesuffix("s") if number == 1 else words) for number, words in facts if number],
        folders=list(map(str, contents.folders)),
        mini="mini" in scales,
        left_out=contents.left_out,
        nothing=not runs,
        first=FIRST,
    )
    return Section("summary", "Summary", "", body)
