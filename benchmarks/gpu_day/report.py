"""The report: Markdown to read, JSON to compute with, and an archive of both with all logs, to send back."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.gpu_day.step import Step, Table
from pixbench.errors import UserError
from pixbench.files import atomic_path, write_json, write_text

REPORT, FACTS, ARCHIVE = "report.md", "report.json", "gpu_day.tar.gz"
SENT = (".log", ".json", ".jsonl", ".txt", ".yaml", ".xml", ".md")
"""Endings of the files that the archive takes. Weights, data and predictions stay."""
MOST_BYTES = 2_000_000
"""Larger files than this stay too."""


def write(out: Path, machine: dict[str, str], steps: Sequence[Step], outcomes: dict[str, dict[str, Any]]) -> Path:
    """Write the report of ``outcomes`` (name of a step -> what is known of it) into ``out``; return the archive."""
    lines = [{"name": step.name, "proves": step.proves, **outcomes[step.name]} for step in steps]
    write_json(out / FACTS, {"machine": machine, "steps": lines})
    write_text(out / REPORT, markdown(machine, steps, outcomes))
    with atomic_path(out / ARCHIVE) as part, tarfile.open(part, "w:gz") as archive:
        found = [out / REPORT, out / FACTS, *sorted((out / "steps").rglob("*"))]
        for path in found:
            if path.suffix in SENT and path.is_file() and path.stat().st_size < MOST_BYTES:
                archive.add(path, Path("gpu_day") / path.relative_to(out))
    return out / ARCHIVE


def markdown(machine: dict[str, str], steps: Sequence[Step], outcomes: dict[str, dict[str, Any]]) -> str:
    """Return the report to read: the machine, a line for each step, and the figures."""
    rows = []
    for step in steps:
        outcome = outcomes[step.name]
        seconds = f"{outcome['seconds']:.0f}" if outcome.get("seconds") else ""
        reason = outcome.get("reason", "")
        if outcome.get("commit", machine["commit"]) != machine["commit"]:
            reason = f"at commit {outcome['commit']}. {reason}".strip()
        rows.append(
            (f"`{step.name}`", outcome["status"], seconds, step.proves, " ".join(reason.split()).replace("|", "/"))
        )
    parts = [
        f"# GPU day, {machine['date']}",
        tabulate(list(machine.items()), ("", ""), tablefmt="github", disable_numparse=True),
        "## Steps",
        tabulate(rows, ("step", "outcome", "s", "what it proves", "reason"), tablefmt="github", disable_numparse=True),
    ]
    for heading in dict.fromkeys(step.figures for step in steps):
        if found := figures([outcomes[step.name] for step in steps if step.figures == heading]):
            parts += [f"## {heading}", found]
    return "\n\n".join(parts) + "\n"


def figures(outcomes: Sequence[dict[str, Any]]) -> str:
    """Return one table of all that was measured in the steps with these outcomes; empty if nothing was."""
    table: Table = {}
    for outcome in outcomes:
        table |= outcome.get("figures") or {}
    named = [{"": name, **{key: _short(value) for key, value in row.items()}} for name, row in table.items()]
    return tabulate(named, headers="keys", tablefmt="github", disable_numparse=True) if named else ""


def read(out: Path) -> dict[str, dict[str, Any]]:
    """Return the outcomes that the report in ``out`` has; empty if there is none."""
    path = out / FACTS
    if not path.exists():
        return {}
    try:
        return {line["name"]: line for line in json.loads(path.read_text(encoding="utf-8"))["steps"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no report of a GPU day ({error}); choose another --out") from error


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
