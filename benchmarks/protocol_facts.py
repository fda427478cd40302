"""What a protocol measures, in lines that `pixbench protocols show` prints and that its page in the docs holds."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from functools import cache
from typing import Any

from benchmarks.published import published
from transfer.datasets.classes import published_classes
from transfer.datasets.layout import SETS
from transfer.protocols import Protocol, leaves

HEADERS = ("setting", "paper", "mini", "what it is")
NO_NUMBER = "no published number of this definition is known to us"


def facts(protocol: Protocol) -> list[tuple[str, str]]:
    """Return (name, text) of data, classes, metrics, deviations and published numbers of ``protocol``."""
    found = [("data", "; ".join(_data(name) for name in protocol.datasets))]
    found += [("classes", text) for name in protocol.datasets if (text := _classes(name))]
    found.append(("metrics", ", ".join(protocol.metrics)))
    if protocol.differs:
        found.append(("differs from the public definition", "; ".join(protocol.differs)))
    return [*found, ("compare with", compare_with(protocol))]


def compare_with(protocol: Protocol) -> str:
    """Return the published numbers of the same definition, with network and source, or that there are none."""
    lines = []
    for row in published().values():
        if found := row.values.get(protocol.name):
            numbers = ", ".join(f"{metric} {protocol.written(metric, value)}" for metric, value in found.items())
            network = "" if row.network in row.title else f" ({row.network})"
            lines.append(f"{row.title}{network}: {numbers} [{row.sources[protocol.name]}]")
    return "; ".join(lines) or NO_NUMBER


def settings(protocol: Protocol) -> list[tuple[str, str, str, str]]:
    """Return a row under `HEADERS` for each setting of a protocol of the framework "frozen"; none for other frameworks."""
    if protocol.framework != "frozen":
        return []
    from transfer.frozen.config import published as config_of
    from transfer.frozen.methods import METHODS
    from transfer.frozen.views import Images

    config = config_of(protocol)
    texts = {f"images.{name}": text for name, text in _texts(Images).items()}
    texts |= {f"settings.{name}": text for name, text in _texts(METHODS[config.method].Settings).items()}
    return [
        (key, _shown(value), _shown(protocol.mini.get(key, value)), texts.get(key, ""))
        for key, value in leaves(config.as_dict())
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _data(name: str) -> str:
    """Return the splits of a data set with their numbers of pictures, as far as these are known."""
    parts = SETS[name]["parts"]
    counts: dict[str, int] = {}
    for part in parts if any("split" not in part for part in parts) else [part for part in parts if "count" in part]:
        split = part.get("split") or ("train" if "/train" in f"/{part['images']}" else "test")
        counts[split] = counts.get(split, 0) + part.get("count", 0)
    listed = ", ".join(f"{count:,} for {split}" for split, count in counts.items() if count)
    return f"{name}: {listed} pictures" if listed else name


def _classes(name: str) -> str:
    """Return the number of classes of a data set and which numbers of its label maps are ignored."""
    if "classes" not in SETS[name]:
        return ""
    parts = SETS[name]["parts"]
    masks = any(part.get("check") == "masks" for part in parts)
    ignored = (
        "; ignored: 0 and 255" if any(part.get("zero_ignored") for part in parts) else "; ignored: 255" if masks else ""
    )
    return f"{len(published_classes(SETS[name]['classes']))}{ignored}"


@cache
def _texts(config: type[Any]) -> dict[str, str]:
    """Return the text below each field of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for cls in reversed(config.__mro__[:-1]):
        body = ast.parse(inspect.getsource(cls)).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, below in zip(body.body, body.body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_text:
                assert isinstance(below, ast.Expr)
                found[node.target.id] = " ".join(ast.literal_eval(below.value).split())
    names = {field.name for field in fields(config)}
    return {name: text for name, text in found.items() if name in names}
