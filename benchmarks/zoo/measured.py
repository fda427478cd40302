"""What the study has measured with the backbones of the zoo, from its results in `study/`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.results.reading import Results, read_all
from pixbench.errors import say
from transfer.protocols import protocols

HEADS = ("protocol", "metric", "mean", "seeds")
PARTS = ("finetuned", "frozen")
"""Folders whose results are comparable, because each protocol has the same settings in all of them."""
Measured = Mapping[str, Sequence[Mapping[str, Any]]]
"""Digest of the settings of a pre-training run -> results that started from it."""


def measured(study: Path) -> Measured:
    """Return the finished results of the `PARTS` of ``study`` by the settings of their pre-training.

    The settings name the folder in the zoo, so they belong to one backbone, and every file that was converted from it has them.
    Nothing if their folders are not there.
    """
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    folders = [study / part for part in PARTS if (study / part).is_dir()]
    results = read_all(folders) if folders else Results()
    for file in results.left_out:
        say(f"left out: {file.path} {file.reason}")
    for item in results.found:
        start = (item.result.get("weights") or {}).get("pretraining") or {}
        if item.result["status"] == "ok" and "config_sha256" in start:
            found[start["config_sha256"]].append(item.result)
    return found


def lines(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, int]]:
    """Return a line under `HEADS` for each main metric of each protocol, frozen protocols first."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        for metric, value in result["metrics"].items():
            if value is not None:
                values[result["protocol"], metric].append(value)
    known = sorted(protocols().values(), key=lambda protocol: protocol.kind != "frozen")
    return [
        (protocol.name, metric, protocol.written(metric, mean(found)), len(found))
        for protocol in known
        for metric in protocol.columns
        if (found := values[protocol.name, metric])
    ]
