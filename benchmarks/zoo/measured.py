"""What the study has measured with a backbone of the zoo: its results in `study/`, found by the digest of the weights."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean

from benchmarks.zoo.entry import Entry
from pixbench.file_versions import RESULT_FILE
from pixbench.files import sha256
from pixbench.results import read_result
from transfer.protocols import protocols

HEADS = ("protocol", "metric", "mean", "seeds")


def measured(entry: Entry, study: Path) -> list[tuple[str, str, str, int]]:
    """Return a line under `HEADS` for each main metric of each protocol, frozen protocols first.

    Args:
        entry: the backbone.
        study: folder with results, at any depth; empty if it is not there.

    Raises:
        UserError: a result there is damaged.
    """
    digest = sha256(entry.weights)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in sorted(study.rglob(RESULT_FILE)):
        result = read_result(path)
        if result["status"] != "ok" or (result.get("weights") or {}).get("sha256") != digest:
            continue
        for metric, value in result["metrics"].items():
            if value is not None:
                found[result["protocol"], metric].append(value)
    known = sorted(protocols().values(), key=lambda protocol: protocol.kind != "frozen")
    return [
        (protocol.name, metric, f"{mean(values):.1f}", len(values))
        for protocol in known
        for metric in protocol.columns
        if (values := found[protocol.name, metric])
    ]
