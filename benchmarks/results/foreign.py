"""Import results of runs that were made elsewhere: Detectron2's `metrics.json` and logs of MMSegmentation."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixbench.curve import POINTS
from pixbench.errors import UserError, listed
from pixbench.file_versions import RESULT_FILE
from pixbench.files import make_folder, sha256
from pixbench.results import rewrite_result
from transfer.protocols import Protocol

IMPORTED = "imported: the run was made elsewhere by {tool}, and PixBench knows neither its settings nor its data nor its weights"
RATES = {"detectron2": ("iteration", "total_loss"), "mmseg": ("step", "loss")}
"""Framework -> what its log calls the iteration and the loss."""
MMSEG_LINE = re.compile(r"Iter\((?P<mode>train|val)\)\s*\[\s*(?P<step>\d+)/\s*(?P<total>\d+)\](?P<rest>.*)")
MMSEG_PAIR = re.compile(r"(?P<name>[A-Za-z]\w*): (?P<value>-?\d[\d.]*(?:e[+-]?\d+)?)")


def imported(
    source: Path, protocol: Protocol, out: Path, label: str, seed: int | None = None, scale: str = "paper"
) -> Path:
    """Write the result of a run elsewhere to ``out/result.json``, marked as imported, and return its path.

    Args:
        source: `metrics.json` of Detectron2; of MMSegmentation, the .log file or the .json file of `vis_data`.
        protocol: the protocol that the run followed.
        out: a new folder.
        label: name of the table row.
        seed: seed of the run; None if it is not known.
        scale: "paper" or "mini".

    Raises:
        UserError: the file cannot be read or holds no metrics of the protocol, or ``out`` has a result.
    """
    if protocol.framework not in RATES:
        raise UserError(
            f"{protocol.name} is run by PixBench alone; import runs of Detectron2's or MMSegmentation's protocols"
        )
    if (out / RESULT_FILE).exists():
        raise UserError(f"{out / RESULT_FILE} exists already; choose another --out")
    points = list(_points(source))
    wanted = set(protocol.metrics.values())
    measured = [point for point in points if wanted & point.keys()]
    if not measured:
        names = listed(sorted({name for point in points for name in point})) or "no numbers"
        raise UserError(
            f"{source} holds none of the metrics of {protocol.name} ({listed(sorted(wanted))}); it holds {names}"
        )
    last, tool = measured[-1], protocol.framework
    step, loss = RATES[tool]
    metrics = {ours: last.get(theirs) for ours, theirs in protocol.metrics.items() if theirs in last}
    curve = [
        {
            "step": int(point[step]),
            **{ours: point[name] for ours, name in _shown(protocol, loss).items() if name in point},
        }
        for point in points
        if isinstance(point.get(step), int | float)
    ]
    result = {
        "kind": protocol.kind,
        "status": "ok",
        "protocol": protocol.name,
        "title": protocol.title,
        "framework": tool,
        "scale": scale,
        "init": label,
        "weights": None,
        "label": label,
        "seed": seed,
        "deviations": [IMPORTED.format(tool=tool)],
        "metrics": metrics,
        "units": {ours: protocol.unit(ours) for ours in metrics},
        "raw_metrics": {name: value for name, value in last.items() if name not in (step, "time", "data_time")},
        "curve": [point for point in curve if len(point) > 1][:: max(1, len(curve) // POINTS)],
        "iterations": max((int(point["step"]) for point in curve), default=0),
        "imported": {"tool": tool, "file": str(source), "sha256": sha256(source)},
    }
    make_folder(out)
    rewrite_result(out / RESULT_FILE, result)
    return out / RESULT_FILE


def _shown(protocol: Protocol, loss: str) -> dict[str, str]:
    return {"loss": loss, "lr": "lr", **protocol.metrics}


def _points(source: Path) -> Iterator[dict[str, float]]:
    """Yield the numbers of each line of a log."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source} cannot be read ({error}); give metrics.json or a log of the run") from error
    for line in lines:
        try:
            point = json.loads(line)
        except ValueError:
            point = _of_text(line)
        except RecursionError:
            continue
        if isinstance(point, dict):
            if point.get("mode") in ("train", "val"):
                raise UserError(
                    f"{source} is a log of MMSegmentation 0.x, whose metrics are fractions and not per cent; evaluate that "
                    "checkpoint with MMSegmentation 1.x and import its log"
                )
            yield {str(name): value for name, value in point.items() if _is_number(value)}


def _of_text(line: str) -> dict[str, Any]:
    """Return the numbers of a line of mmengine's text log; {} if it has none."""
    found = MMSEG_LINE.search(line)
    if not found:
        return {}
    values = {pair["name"]: float(pair["value"]) for pair in MMSEG_PAIR.finditer(found["rest"])}
    return values | ({"step": int(found["step"])} if found["mode"] == "train" else {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
