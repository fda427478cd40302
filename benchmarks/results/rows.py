"""Results for people and for other programs: a line each, a description, a table with a line for each metric."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.results.query import NAMES, value_of
from benchmarks.results.reading import Found
from benchmarks.spreadsheet import field
from pixbench.errors import UserError, printable
from pixbench.files import atomic_path
from transfer.protocols import protocols

HEADS = ("run", "kind", "what", "row", "scale", "seed", "status", "metrics")
COLUMNS = (
    *("path", "kind", "status", "protocol", "framework", "scale", "label", "seed", "method", "pretraining_seed"),
    *("pretraining", "weights", "metric", "value", "unit", "iterations", "started", "finished", "wall_time_s"),
    *("peak_memory_gb", "peak_gpu_memory_gb", "device", "commit", "dirty", "tool", "deviations"),
)
"""Columns of an export."""


def row(item: Found) -> tuple[str, ...]:
    """Return the line of a result in a list."""
    result = item.result
    what = result.get("protocol") or value_of(result, "method") or "–"
    label = value_of(result, "label")
    metrics = "  ".join(f"{name} {written(result, name)}" for name in _main_metrics(result))
    seed = "–" if result.get("seed") is None else str(result["seed"])
    texts = (
        str(item.path.parent),
        result["kind"],
        what,
        label or "–",
        result.get("scale", "–"),
        seed,
        result["status"],
    )
    return tuple(printable(text) for text in (*texts, metrics or result.get("reason", "")[:60]))


def written(result: dict[str, Any], metric: str) -> str:
    """Return a metric for people."""
    protocol, value = protocols().get(result.get("protocol", "")), result["metrics"][metric]
    if protocol:
        return protocol.written(metric, value)
    return "undefined" if value is None else f"{value:.4g}"


def _main_metrics(result: dict[str, Any]) -> list[str]:
    metrics, protocol = result.get("metrics") or {}, protocols().get(result.get("protocol", ""))
    return [name for name in metrics if protocol is None or name in protocol.columns] or [*metrics][:3]


def description(path: Path, result: dict[str, Any]) -> str:
    """Return what a result says, for people."""
    units = result.get("units") or {}
    lines = [
        (printable(name), written(result, name), printable(units.get(name, "").replace("1", "")))
        for name in result.get("metrics") or {}
    ]
    first = (
        "kind",
        "status",
        "reason",
        "title",
        "protocol",
        "scale",
        "label",
        "seed",
        *NAMES,
        "weights.path",
        "versions.torch",
    )
    usage, data = result.get("usage") or {}, result.get("data") or {}
    facts = [(name, value_of(result, name)) for name in first]
    facts += [
        (name, result.get(name)) for name in ("started", "finished", "wall_time_s", "config_sha256", "upgraded_from")
    ]
    facts += [(name, value) for name, value in usage.items() if name != "unread"]
    facts += [(name, f"not read: {why}") for name, why in (usage.get("unread") or {}).items()]
    facts += [("data", f"{name} {digest}") for name, digest in (data.get("fingerprints") or {}).items()]
    facts += [("deviation", text) for text in result.get("deviations") or ()]
    facts += [("file", f"{name}, {about['bytes']:,} bytes") for name, about in (result.get("stored") or {}).items()]
    shown = [(name, printable(str(value))) for name, value in facts if value not in (None, "")]
    parts = [f"{printable(str(path))}\n", tabulate(shown, tablefmt="plain", disable_numparse=True)]
    if lines:
        parts += ["", tabulate(lines, ("metric", "value", "unit"), tablefmt="simple", disable_numparse=True)]
    if per_class := result.get("per_class"):
        names = [*per_class]
        classes = dict.fromkeys(label for values in per_class.values() for label in values)
        body = [(printable(label), *(_short(per_class[name].get(label)) for name in names)) for label in classes]
        parts += ["", tabulate(body, ("class", *map(printable, names)), tablefmt="simple", disable_numparse=True)]
    return "\n".join(parts)


def _short(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1f}"


def tidy(found: Sequence[Found]) -> Iterator[dict[str, Any]]:
    """Yield a line for each metric of each result; one without a metric for a result that has none."""
    for path, result in found:
        about = {name: value_of(result, name) for name in COLUMNS if name not in ("path", "metric", "value", "unit")}
        about |= {name: (result.get("usage") or {}).get(name) for name in ("peak_memory_gb", "peak_gpu_memory_gb")}
        about |= {"path": str(path), "deviations": "; ".join(result.get("deviations") or ())}
        units = result.get("units") or {}
        for metric, value in (result.get("metrics") or {None: None}).items():
            line = about | {"metric": metric, "value": value, "unit": units.get(metric)}
            yield {name: line[name] for name in COLUMNS}


def write_csv(found: Sequence[Found], path: Path) -> int:
    """Write `tidy` as CSV and return the number of lines; text that a spreadsheet would compute gets an apostrophe."""
    lines = [*tidy(found)]
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: field(value) for name, value in line.items()} for line in lines)
    return len(lines)


def write_parquet(found: Sequence[Found], path: Path) -> int:
    """Write `tidy` as Parquet and return the number of lines; raise `UserError` if pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError('Parquet needs the package pyarrow: pip install "pixbench[parquet]"; or write --csv') from error
    whole, real = (
        ("seed", "pretraining_seed", "iterations"),
        ("value", "wall_time_s", "peak_memory_gb", "peak_gpu_memory_gb"),
    )
    types = dict.fromkeys(COLUMNS, pyarrow.string()) | dict.fromkeys(whole, pyarrow.int64())
    types |= dict.fromkeys(real, pyarrow.float64()) | {"dirty": pyarrow.bool_()}
    lines = [*tidy(found)]
    table = pyarrow.Table.from_pylist(lines, schema=pyarrow.schema([(name, types[name]) for name in COLUMNS]))
    with atomic_path(path) as part:
        pyarrow.parquet.write_table(table, part)
    return len(lines)
