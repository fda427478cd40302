"""Where the numbers come from: every run, and every deviation from a published protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report.comparison import TABLES
from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section
from benchmarks.results.rows import row

HEADS = (
    *("Run", "Kind", "What", "Row", "Scale", "Seed", "Status", "Deviations", "Commit", "On", "Hours", "Finished"),
    "Metrics",
)


def section(contents: Contents) -> Section | None:
    """Return a table of all runs and one of all deviations; None without any run."""
    found = contents.results.found
    if not found:
        return None
    deviations: dict[tuple[str, str], int] = {}
    lines = []
    for item in found:
        result = item.result
        texts = result.get("deviations") or []
        for text in texts:
            deviations[result["protocol"], text] = deviations.get((result["protocol"], text), 0) + 1
        host, finished = result.get("host") or {}, (result.get("finished") or "–").replace("T", " ")[:16]
        hours = f"{result['wall_time_s'] / 3600:.2f}" if "wall_time_s" in result else "–"
        about = (str(len(texts)), _commit(result), host.get("device", "–"), hours, finished)
        *which, metrics = row(item)[1:]
        lines.append((contents.short(item.path), *which, *about, metrics))
    versions = {(name, version) for _, result in found for name, version in (result.get("versions") or {}).items()}
    body = fill(
        "provenance.html.j2",
        heads=HEADS,
        lines=lines,
        deviations=[(protocol, text, str(number)) for (protocol, text), number in sorted(deviations.items())],
        versions=sorted(versions),
    )
    intro = "Every run, with what made it. A commit with a star had local changes."
    return Section("provenance", "Runs and deviations", intro, body, script=TABLES)


def _commit(result: Mapping[str, Any]) -> str:
    if imported := result.get("imported"):
        return f"imported from {imported['tool']}"
    code = result.get("code") or {}
    return f"{code['commit'][:9]}{'*' * bool(code.get('dirty'))}" if code.get("commit") else "–"
