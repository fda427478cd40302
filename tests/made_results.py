"""Results as runs write them, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pixbench.file_versions import RESULT_FILE
from pixbench.results import config_hash, rewrite_result
from transfer.protocols import find_protocol, protocols

ABOUT: dict[str, Any] = {
    "status": "ok",
    "command": ["pixbench"],
    "versions": {"python": "3.11.7"},
    "code": {"commit": "0" * 40, "dirty": False, "why": ""},
    "host": {"device": "cpu", "processes": 1, "cpus": 2, "threads": 2},
    "usage": {
        "peak_memory_gb": 1.5,
        "peak_gpu_memory_gb": None,
        "cpu_energy_j": None,
        "gpu_energy_j": None,
        "unread": {},
    },
    "started": "2026-11-27T20:00:00+00:00",
    "finished": "2026-11-27T20:10:00+00:00",
    "wall_time_s": 600.0,
    "curve": [{"step": 1, "loss": 2.0}],
    "seed": 0,
}


def made(protocol: str = "voc_c4", metrics: Any = None, **changes: Any) -> dict[str, Any]:
    """The content of a result of ``protocol``, with ``changes``; one that is `...` takes a field away."""
    about = protocols()[protocol] if protocol in protocols() else find_protocol("voc_c4")
    metrics = {name: 10.0 for name in about.metrics} if metrics is None else metrics
    config = {"A": 1} if changes.get("config", ...) is ... else changes["config"]
    own = {
        "kind": about.kind,
        "protocol": protocol,
        "title": about.title,
        "framework": about.framework,
        "scale": "mini",
        "init": "random",
        "weights": None,
        "label": None,
        "deviations": [],
        "metrics": metrics,
        "units": ... if metrics is ... else {name: about.unit(name) for name in metrics},
        "config": config,
        "config_sha256": config_hash(config),
    }
    return {key: value for key, value in {**ABOUT, **own, **changes}.items() if value is not ...}


def write(
    folder: Path, protocol: str = "voc_c4", metrics: dict[str, float | None] | None = None, **changes: Any
) -> Path:
    """Write the result `made` to ``folder`` and return its path."""
    rewrite_result(folder / RESULT_FILE, made(protocol, metrics, **changes))
    return folder / RESULT_FILE


def write_pretraining(folder: Path, **changes: Any) -> Path:
    """Write the result of a pre-training run to ``folder`` and return its path."""
    config = {"A": 1}
    own = {"kind": "pretrain", "metrics": {"loss": 2.0}, "units": {"loss": "1"}, "config": config}
    rewrite_result(folder / RESULT_FILE, {**ABOUT, **own, "config_sha256": config_hash(config), **changes})
    return folder / RESULT_FILE
