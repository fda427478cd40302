"""How many core-hours the study took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.study.answers import MAIN
from pixbench.file_versions import RESULT_FILE
from pixbench.paths import STUDY, ZOO
from pixbench.results import read_result

PARTS = {
    "search": ("search",),
    "main rows": (),
    "others": (),
    "ablations": ("ablations/pretrain",),
    "fine-tuning": ("finetuned/runs",),
    "frozen": ("frozen/runs", "ablations/runs"),
    "longer fine-tuning (not planned)": ("longer/runs",),
}
"""Part of the budget -> folders of its results; those of the rows are in the zoo."""


def table(study: Path = STUDY) -> str:
    """Return the runs and the core-hours of each part."""
    rows = []
    for part, folders in PARTS.items():
        paths = [path for name in folders for path in sorted((study / name).rglob(RESULT_FILE))]
        found = [read_result(path) for path in paths] or [*_backbones(study, part)]
        if found:
            rows.append((part, str(len(found)), f"{sum(map(core_hours, found)):.1f}"))
    if not rows:
        return "*Not measured yet.*"
    return tabulate(rows, ("part", "runs", "core-hours"), tablefmt="github", disable_numparse=True)


def core_hours(result: dict[str, Any]) -> float:
    """Return the time of a run times its threads, in hours; that of all sessions, if it was interrupted."""
    seconds = max(result["wall_time_s"], result.get("seconds") or 0)
    return float(seconds * result["host"]["threads"] / 3600)


def _backbones(study: Path, part: str) -> Iterator[dict[str, Any]]:
    """Yield the results of the main rows or of the others, if ``study`` is that of the zoo."""
    if study == STUDY and part in ("main rows", "others"):
        for path in sorted(ZOO.glob(f"*/{RESULT_FILE}")):
            if (path.parent.name.rpartition("_s")[0] in MAIN) == (part == "main rows"):
                yield read_result(path)
