"""What the runs took: hours, GPU-hours and images a second, as their results recorded it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.results.reading import read_all
from benchmarks.tables.collected import Group
from benchmarks.tables.options import Options
from benchmarks.tables.table import Cell, Document, Head, Table
from pixbench.file_versions import STEP_LOG
from transfer.protocols import leaves

PRETRAINING = "pre-training"
BATCH = {"SOLVER.IMS_PER_BATCH": 1, "train_dataloader.batch_size": 0}
"""Setting with the images of a step -> whether it counts all processes together."""


def cost_document(groups: Sequence[Group], runs: Sequence[Path], options: Options) -> Document:
    """Return a table of the cost of each row under each protocol, and of the pre-training runs below ``runs``."""
    records = [*_pretraining(runs), *_evaluations(groups, options)]
    body = []
    for found in records:
        hours, rate, gpu = found["hours"], found["images_per_s"], found["gpu_hours"]
        numbers = (f"{hours:.2f}", "–" if gpu is None else f"{gpu:.2f}", "–" if rate is None else f"{rate:.1f}")
        what = " at ".join(part for part in (found["what"], found["scale"] and f"{found['scale']} scale") if part)
        body.append(
            [Cell(found["label"]), Cell(what), Cell(str(found["runs"])), *map(Cell, numbers), Cell(found["device"])]
        )
    heads = ["Row", "What", "Runs", "Hours of a run", "GPU-hours in all", "Images/s", "On"]
    intro = (
        "Hours are means, from start to end of a run, evaluation included; of a resumed run, only since it was resumed. "
        "Images/s are those of training."
    )
    return Document("Cost", [Table("Cost of the runs", [Head(head) for head in heads], body, intro=intro)], records)


def _evaluations(groups: Iterable[Group], options: Options) -> Iterable[dict[str, Any]]:
    for group in groups:
        for label in options.ordered([*group.rows]):
            for task in group.tasks():
                if entry := group.rows[label].get(task):
                    runs = [run for run in entry.runs if "wall_time_s" in run]
                    rates = [rate for run in runs if (rate := _rate(run)) is not None]
                    yield from _record(group.title(label), task.protocol + task.own, group.scale, runs, rates)


def _rate(run: dict[str, Any]) -> float | None:
    """Return the images of training a second; None for a run that trains nothing or whose batch is not known."""
    settings = dict(leaves(run.get("config") or {}))
    processes = (run.get("host") or {}).get("processes", 1)
    for key, in_all in BATCH.items():
        if (batch := settings.get(key)) and run.get("iterations") and not run.get("resumed"):
            step = batch * (1 if in_all else processes) * (run.get("scaling") or {}).get("accumulate", 1)
            return float(run["iterations"] * step / run["wall_time_s"])
    return None


def _pretraining(folders: Sequence[Path]) -> Iterable[dict[str, Any]]:
    for path, run in read_all(folders).found:  # collecting results says what was left out
        if run["kind"] == "pretrain" and run["status"] == "ok":
            took = {**run, "wall_time_s": run["seconds"]}  # with the time before it was resumed
            yield from _record(path.parent.name, PRETRAINING, "", [took], _logged_rates(path.with_name(STEP_LOG)))


def _logged_rates(path: Path) -> list[float]:
    """Return the images a second of each logged step; none if there is no log."""
    with suppress(OSError, ValueError):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [line["images_per_s"] for line in lines if "images_per_s" in line]
    return []


def _record(
    label: str, what: str, scale: str, runs: Sequence[dict[str, Any]], rates: Sequence[float]
) -> Iterable[dict[str, Any]]:
    if not runs:
        return
    hosts = [run.get("host") or {} for run in runs]
    devices = dict.fromkeys(f"{host.get('processes', 1)} × {host['device']}" for host in hosts if "device" in host)
    gpus = [host for host in hosts if host.get("device", "cpu") != "cpu"]
    seconds = [run["wall_time_s"] for run in runs]
    each = [time * host.get("processes", 1) for time, host in zip(seconds, hosts, strict=True)]
    yield {
        **{"label": label, "what": what, "scale": scale, "runs": len(runs), "hours": statistics.mean(seconds) / 3600},
        "gpu_hours": sum(each) / 3600 if len(gpus) == len(runs) else None,
        "images_per_s": statistics.median(rates) if rates else None,
        "device": ", ".join(devices) or "not recorded",
    }
