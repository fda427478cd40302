"""Describe a weight file without reading its numbers, for `pixbench weights inspect`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pixbench.errors import UserError, printable
from pixbench.file_versions import WEIGHTS_KEY
from pixbench.files import sha256
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import recognition
from transfer.weights.containers import safe
from transfer.weights.containers.arrays import type_name
from transfer.weights.file_format import Format, formats
from transfer.weights.read_file import declared, spec_in
from transfer.weights.vit_spec import VitSpec

HEADERS = ("`--from`", "file", "backbones and their prefix", "left out on purpose", "source of the names (tested with)")


def inspect(path: Path, wanted: str | None = None) -> dict[str, Any]:
    """Return size and sha256 of a file, and a description of its content for each format that fits (usually one)."""
    content = safe.read(path, checked=False)
    names = [recognition.recognise(content, path, wanted)] if wanted else recognition.candidates(content)
    names = names or [recognition.recognise(content, path)]  # raises an error with the reason
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "formats": {name: _describe(content, formats()[name], path) for name in names},
    }


def _describe(content: Any, fmt: Format, path: Path) -> dict[str, Any]:
    fmt = recognition.as_declared(fmt, content)
    table = recognition.table(content, fmt)
    assert table is not None  # the format was recognised
    weights = table.weights
    sorted_by = {branch: recognition.sort(weights, fmt, branch) for branch in fmt.branches}
    branches = [branch for branch, sorting in sorted_by.items() if sorting.backbone]
    sorting = sorted_by[branches[0]]
    arrays = {name: weights[key] for key, name in sorting.backbone.items() if isinstance(weights[key], np.ndarray)}
    shapes = {name: array.shape for name, array in arrays.items()}
    declaration = content if "format" in fmt.beside else content.get(WEIGHTS_KEY)
    declaration = declaration if isinstance(declaration, dict) else {}
    pixels: Any = fmt.pixels
    try:
        fields = {**recognition.measure(shapes, str(path)), **fmt.backbone}
        spec: Any = VitSpec(**fields) if "patch" in fields else BackboneSpec(**fields)
        spec = declared(spec_in(declaration), spec, path) if spec_in(declaration) is not None else spec
        pixels = declared(declaration["pixels"], pixels, path) if "pixels" in declaration else pixels
        backbone: dict[str, Any] = {"title": spec.title, **spec.as_dict()}
    except (UserError, TypeError, ValueError) as error:
        backbone = {"title": f"none that can be converted: {error}"}
    types = Counter(map(type_name, arrays.values()))
    return {
        "title": fmt.title,
        "backbone": backbone,
        "branches": branches,
        "pixels": asdict(pixels),
        "types": dict(types),
        "converted": len(sorting.backbone) + len(sorting.extras),
        "dropped": dict(Counter(sorting.dropped.values())),
        "unknown": sorting.unknown,
        "beside the weights": table.beside,
    }


def report(found: dict[str, Any]) -> str:
    """Return the text that the command prints."""
    lines = [f"file     {found['file']} ({found['bytes'] / 1e6:.1f} MB)", f"sha256   {found['sha256']}"]
    for name, about in found["formats"].items():
        pixels = about["pixels"]
        numbers = [f"{about['converted']} to convert"]
        if about["dropped"]:
            dropped = ", ".join(f"{number} {reason}" for reason, number in about["dropped"].items())
            numbers.append(f"dropped: {dropped}")
        lines += [
            f"format   {name}: {about['title']}",
            f"backbone {about['backbone']['title']}",
            f"pixels   {pixels['order']}, mean {list(pixels['mean'])}, std {list(pixels['std'])}",
            f"branches {', '.join(about['branches'])}",
            f"keys     {'; '.join(numbers)}",
        ]
        if about["unknown"]:
            lines.append(
                f"unknown  {len(about['unknown'])} keys, which `pixbench convert` refuses: "
                f"{', '.join(map(printable, about['unknown']))}"
            )
        if about["beside the weights"]:
            lines.append(f"other    {', '.join(about['beside the weights'])}")
    if len(found["formats"]) > 1:
        lines.append("the keys do not show which of these formats it is; choose one with --from")
    return "\n".join(lines)


def listing() -> str:
    """Return a Markdown table of all formats."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEADERS, ("---",) * len(HEADERS), *rows()))


def rows() -> list[tuple[str, ...]]:
    """Return one row of Markdown texts for each format, under `HEADERS`."""
    found: list[tuple[str, ...]] = []
    for name, fmt in sorted(formats().items()):
        prefixes = [f"{branch} `{prefix}`" if prefix else branch for branch, prefix in fmt.branches.items()]
        source = f"{fmt.source} ({fmt.checked})"
        found.append((f"`{name}`", fmt.title, ", ".join(prefixes), ", ".join(fmt.dropped) or "–", source))
    return found
