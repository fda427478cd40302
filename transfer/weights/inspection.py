"""`pixbench weights inspect`: what a file is, without reading its numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pretrain.errors import UserError
from pretrain.files import sha256
from transfer.weights import format, outline


def inspect(path: Path, wanted: str | None = None) -> dict[str, Any]:
    """Size and sha256 of a file, and for each format that it may be of (one, as a rule) what is known of its content."""
    content = outline.read(path)
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
    shapes = {name: getattr(weights[key], "shape", ()) for key, name in sorting.trunk.items()}
    try:
        trunk: dict[str, Any] = {**format.measure(shapes, str(path)), "stride_in_1x1": False, **kind.trunk}
    except UserError as error:
        trunk = {"problem": str(error)}
    types = Counter(getattr(weights[key], "dtype", "?") for key in sorting.trunk)
    return {
        "title": kind.title,
        "trunk": trunk,
        "branches": branches,
        "pixels": {"order": kind.pixels.order, "mean": list(kind.pixels.mean), "std": list(kind.pixels.std)},
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
        spec, pixels = about["trunk"], about["pixels"]
        stride = "1×1" if spec.get("stride_in_1x1") else "3×3"
        trunk = spec.get("problem") or (
            f"ResNet-{spec['depth']}, width {spec['width']:g}, {spec['stem']} stem, stride in the {stride} convolution"
        )
        numbers = [f"{about['converted']} to convert"]
        numbers += [f"{number} {reason}" for reason, number in about["dropped"].items()]
        lines += [
            f"format   {name}: {about['title']}",
            f"trunk    {trunk}",
            f"pixels   {pixels['order']}, mean {pixels['mean']}, std {pixels['std']}",
            f"branches {', '.join(about['branches'])}",
            f"keys     {'; '.join(numbers)}",
        ]
        if about["unknown"]:
            lines.append(
                f"unknown  {len(about['unknown'])} keys, which convert will refuse: {', '.join(about['unknown'])}"
            )
        if about["beside the weights"]:
            lines.append(f"beside   {', '.join(about['beside the weights'])}")
    if len(found["formats"]) > 1:
        lines.append("its keys do not tell which of these it is; say so with --from")
    return "\n".join(lines)
