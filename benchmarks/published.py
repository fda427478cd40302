"""Published numbers (`published.yaml`), each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Published:
    label: str
    title: str
    values: dict[str, dict[str, float]]
    """protocol -> metric -> number."""
    sources: dict[str, str]
    """protocol -> where its numbers were read."""


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def title(label: str) -> str:
    """How a table writes the row ``label``."""
    return published()[label].title if label in published() else _table()["titles"].get(label, label)


@cache
def published() -> dict[str, Published]:
    table = _table()
    rows = {}
    for label, row in table["rows"].items():
        keys = row["source"] if isinstance(row["source"], dict) else dict.fromkeys(row["values"], row["source"])
        sources = {protocol: table["sources"][key] for protocol, key in keys.items()}
        rows[label] = Published(label, row["title"], row["values"], sources)
    return rows
