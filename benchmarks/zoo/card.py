"""The card of a backbone of the zoo: how it was made, how it learnt, and what was measured with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from benchmarks.zoo import measured
from benchmarks.zoo.entry import Entry
from pixbench.errors import printable
from pixbench.files import sha256

HEADS = ("name", "method", "seed", "images seen", "backbone", "MB")


def images_seen(result: Mapping[str, Any]) -> int:
    """Return how many images the run has seen, each epoch anew; supervised training sees one view of each, others two."""
    return int(result["step"]) * int(result["config"]["batch_size"])


def row(entry: Entry) -> tuple[str, ...]:
    """Return its line in the list of all backbones, under `HEADS`."""
    result = entry.result
    about = result["config"]["backbone"]
    network = about.get("name", "resnet")
    if network == "resnet":
        network = f"ResNet-{about['depth']}, width {about['width']:g}, stride {about['output_stride']}"
    size = entry.weights.stat().st_size / 1e6
    found = (entry.name, result["method"], str(result["seed"]), f"{images_seen(result):,}", network, f"{size:.1f}")
    return tuple(map(printable, found))


def card(entry: Entry, found: measured.Measured) -> str:
    """Return the card as Markdown; its numbers are those of ``found``, see `benchmarks.zoo.measured`."""
    result = entry.result
    facts = dict(zip(HEADS, row(entry), strict=True))
    facts |= {
        "command": f"`{shlex.join(result['command'])}`",
        "settings": f"[config.yaml](config.yaml), SHA-256 {result['config_sha256'][:12]}",
        "images": f"fingerprint {result['images'][:12]}",
        "commit": (result["code"].get("commit") or "unknown")[:12],
        "time": f"{result['seconds'] / 3600:.2f} hours on {result['host'].get('cpu', 'an unknown machine')}",
        "SHA-256": sha256(entry.weights),
    }
    lines = [f"# zoo:{entry.name}", "", tabulate(facts.items(), ("", ""), tablefmt="github", disable_numparse=True)]
    lines += ["", "Kernels and matrices are in half precision.", "", "## Curve", ""]
    lines += [tabulate(curve(result), "keys", tablefmt="github", floatfmt=".3f")]
    if numbers := measured.lines(found.get(result["config_sha256"], ())):
        lines += ["", "## Measured", "", "In the study (docs/study.md), at mini scale.", ""]
        lines += [tabulate(numbers, measured.HEADS, tablefmt="github", disable_numparse=True)]
    return printable("\n".join(lines), kept="\n") + "\n"


def curve(result: Mapping[str, Any], most: int = 10) -> list[dict[str, Any]]:
    """Return about ``most`` points of the learning curve."""
    points = result["curve"]
    every = max(1, -(-len(points) // most))
    shown = ("step", "loss", "feature_std", "knn")
    return [{name: point[name] for name in shown if point.get(name) is not None} for point in points[::every]]
