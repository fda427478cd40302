"""`pixbench weights inspect`: what a file is, without reading its numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pixbench.errors import UserError, printable
from pixbench.files import sha256
from pretrain.models.spec import TrunkSpec
from transfer.weights import format
from transfer.weights.containers import ABOUT, safe
from transfer.weights.containers.arrays import type_name
from transfer.weights.readers import declared
from transfer.weights.vit import VitSpec


def inspect(path: Path, wanted: str | None = None) -> dict[str, Any]:
    """Size and sha256 of a file, and for each format that it may be of (one, as a rule) what is known of its content."""
    content = safe.read(path, checked=False)
    names = [format.recognise(content, path, wanted)] if wanted else format.candidates(content)
    names = names or [format.recognise(content, path)]  # says why not
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "formats": {name: _describe(content, format.formats()[name], path) for name in names},
    }


def _describe(content: Any, kind: format.Format, path: Path) -> dict[str, Any]:
    held = format.table(content, kind)
    assert held is not None  # or it would be no candidate
    weights = held.weights
    sorted_by = {branch: format.sort(weights, kind, branch) for branch in kind.branches}
    branches = [branch for branch, sorting in sorted_by.items() if sorting.trunk]
    sorting = sorted_by[branches[0]]
    arrays = {name: weights[key] for key, name in sorting.trunk.items() if isinstance(weights[key], np.ndarray)}
    shapes = {name: array.shape for name, array in arrays.items()}
    said = content if kind is format.formats()["pixbench"] else content.get(ABOUT)
    said = said if isinstance(said, dict) else {}
    pixels: Any = kind.pixels
    try:
        fields = {**format.measure(shapes, str(path)), **kind.trunk}
        spec: Any = VitSpec(**fields) if "patch" in fields else TrunkSpec(**fields)
        spec = declared(said["trunk"], spec, path) if "trunk" in said else spec
        pixels = declared(said["pixels"], pixels, path) if "pixels" in said else pixels
        trunk: dict[str, Any] = {"title": spec.title, **spec.as_dict()}
    except (UserError, TypeError, ValueError) as error:
        trunk = {"title": f"none that can be converted: {error}"}
    types = Counter(map(type_name, arrays.values()))
    return {
        "title": kind.title,
        "trunk": trunk,
        "branches": branches,
        "pixels": asdict(pixels),
        "types": dict(types),
        "converted": len(sorting.trunk) + len(sorting.extras),
        "dropped": dict(Counter(sorting.dropped.values())),
        "unknown": sorting.unknown,
        "beside the weights": held.beside,
    }


def report(found: dict[str, Any]) -> str:
    """What the command prints."""
    lines = [f"file     {found['file']} ({found['bytes'] / 1e6:.1f} MB)", f"sha256   {found['sha256']}"]
    for name, about in found["formats"].items():
        pixels = about["pixels"]
        numbers = [f"{about['converted']} to convert"]
        numbers += [f"{number} {reason}" for reason, number in about["dropped"].items()]
        lines += [
            f"format   {name}: {about['title']}",
            f"trunk    {about['trunk']['title']}",
            f"pixels   {pixels['order']}, mean {list(pixels['mean'])}, std {list(pixels['std'])}",
            f"branches {', '.join(about['branches'])}",
            f"keys     {'; '.join(numbers)}",
        ]
        if about["unknown"]:
            lines.append(
                f"unknown  {len(about['unknown'])} keys, which convert will refuse: {', '.join(map(printable, about['unknown']))}"
            )
        if about["beside the weights"]:
            lines.append(f"beside   {', '.join(about['beside the weights'])}")
    if len(found["formats"]) > 1:
        lines.append("its keys do not tell which of these it is; say so with --from")
    return "\n".join(lines)


def listing() -> str:
    """Table of all formats, in Markdown."""
    rows = [
        ("`--from`", "file", "trunks and their prefix", "left out on purpose", "names from (tried on)"),
        ("---",) * 5,
    ]
    for name, kind in sorted(format.formats().items()):
        prefixes = [f"{branch} `{prefix}`" if prefix else branch for branch, prefix in kind.branches.items()]
        source = f"{kind.source} ({kind.checked})"
        rows.append((f"`{name}`", kind.title, ", ".join(prefixes), ", ".join(kind.dropped) or "–", source))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
