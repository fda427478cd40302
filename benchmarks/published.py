"""Published numbers (`published.yaml`), each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Published:
    """Published numbers of one row of the tables."""

    label: str
    title: str
    values: dict[str, dict[str, float]]
    """protocol -> metric -> number."""
    sources: dict[str, str]
    """protocol -> source of its numbers."""


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def title(label: str) -> str:
    """Return the title of the row ``label`` in a table."""
    return published()[label].title if label in published() else _table()["titles"].get(label, label)


@cache
def published() -> dict[str, Published]:
    """Return the published numbers of all rows, by label."""
    table = _table()
    rows = {}
    for label, row in table["rows"].items():
        keys = row["source"] if isinstance(row["source"], dict) else dict.fromkeys(row["values"], row["source"])
        sources = {protocol: table["sources"][key] for protocol, key in keys.items()}
        rows[label] = Published(label, row["title"], row["values"], sources)
    return rows
