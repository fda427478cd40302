"""Results as the runs write them, and the tables made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_results

from benchmarks.tables import write_tables
from benchmarks.tables.formats.markdown import to_markdown
from benchmarks.tables.options import Options

HOST = {"device": "cpu", "processes": 1, "cpus": 2, "threads": 2}


def result(folder: Path, label: str, protocol: str, metrics: dict[str, float | None], **changes: object) -> None:
    """Write a result. What it says of its weights and machine may be a part of what results hold."""
    defaults = {"weights": {"path": "x.pth", "sha256": "a" * 64, "source": "x.pth"}, "host": HOST}
    for name, default in defaults.items():
        if changes.get(name):
            changes[name] = {**default, **changes[name]}  # type: ignore[dict-item]
    settings = {"label": label, "deviations": ["MAX_ITER 5 instead of 24000"], **changes}
    made_results.write(folder, protocol, metrics, **settings)


def pretraining(folder: Path, **facts: object) -> None:
    """Write the result of a pre-training run."""
    made_results.write_pretraining(folder, **facts)


def frozen(folder: Path, label: str, protocol: str, metrics: dict[str, float | None], **changes: object) -> None:
    result(folder, label, protocol, metrics, **{"kind": "frozen", "deviations": [], **changes})


def seeds(folder: Path, label: str, values: list[float], **changes: Any) -> None:
    """Write results of `cityscapes_fcn16s`, one for each value, with seeds 0, 1, …."""
    for seed, value in enumerate(values):
        result(folder / label / str(seed), label, "cityscapes_fcn16s", {"mIoU": value}, seed=seed, **changes)


def written(folder: Path, **options: Any) -> str:
    """Write the tables of the results in a folder and return their Markdown."""
    return to_markdown(write_tables(folder, folder, Options(**options)))


def cells(text: str) -> dict[str, str]:
    """Return the first line of the first table in Markdown: heading -> text."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return dict(zip(lines[0], lines[2], strict=True))
