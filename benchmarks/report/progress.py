"""Runs that have begun and have no result yet, from the files of their folders."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pixbench.curve import CURVE_FILE, read_curve
from pixbench.file_versions import RESULT_FILE, STEP_LOG
from pixbench.progress import PROGRESS, read_progress

NOT_OURS = (OSError, TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError)
"""What reading raises at a file of another program, at a damaged one, and at one that was removed meanwhile."""
SILENT_S = 600.0
"""A run that has written nothing for so long may have stopped."""


class Begun(NamedTuple):
    """A run without a result."""

    folder: Path
    done: int
    """Finished steps."""
    total: int
    left_s: float
    """Seconds that are left, as the run estimates them."""
    best: dict[str, float]
    """Metrics so far."""
    loss: float | None
    silent_s: float
    """Seconds since it last wrote."""

    @property
    def state(self) -> str:
        """Return whether it seems to run."""
        return "running" if self.silent_s < SILENT_S else f"silent for {clock(self.silent_s)}"

    def cells(self) -> tuple[str, ...]:
        """Return the texts of its line in a table; see `HEADS`."""
        loss = "" if self.loss is None else f"{self.loss:.4g}"
        metrics = "  ".join(f"{name} {value:.1f}" for name, value in [*self.best.items()][:2])
        return str(self.folder), self.state, f"{self.done}/{self.total}", clock(self.left_s), loss, metrics


HEADS = ("Run", "State", "Iteration", "Left", "Loss", "Best so far")


def begun(folders: Sequence[Path]) -> Iterator[Begun]:
    """Yield the runs below ``folders`` that have begun and have no result, in the order of their paths."""
    now = time.time()
    for folder in folders:
        for parent, below, files in os.walk(folder):
            below.sort()
            run = Path(parent)
            if PROGRESS not in files or RESULT_FILE in files:
                continue
            if not (run / PROGRESS).is_file():  # a pipe would never end
                continue
            with suppress(*NOT_OURS):
                held: dict[str, Any] = read_progress(run)
                best = {str(name): float(value) for name, value in held.get("best", {}).items()}
                log = run / (STEP_LOG if STEP_LOG in files else CURVE_FILE)
                curve = read_curve(log, most=1) if log.is_file() else []
                loss = curve[-1].get("loss") if curve else None
                silent = now - (run / PROGRESS).stat().st_mtime
                found = Begun(
                    run, int(held["done"]), int(held["total"]), float(held["left_s"]), best, loss, max(0.0, silent)
                )
                found.cells()  # what cannot be written is no progress of ours
                yield found


def ended(folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield (job, reason) of each job of the suites in ``folders`` that failed, as their records say."""
    for folder in folders:
        for path in filter(Path.is_file, sorted((folder / "jobs").glob("*.json"))):
            with suppress(*NOT_OURS):
                record = json.loads(path.read_text(encoding="utf-8"))
                if record["status"] == "failed":
                    yield str(record["job"]), str(record["reason"])


def clock(seconds: float) -> str:
    """Return ``seconds`` as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))
