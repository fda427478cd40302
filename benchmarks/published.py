"""Published numbers (`published.yaml`), each with its source and its network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pretrain.models.named_spec import NamedSpec
from transfer.weights.spec import Spec, spec_from


@dataclass(frozen=True)
class Published:
    """Published numbers of one row of the tables."""

    label: str
    title: str
    values: dict[str, dict[str, float]]
    """protocol -> metric -> number."""
    sources: dict[str, str]
    """protocol -> source of its numbers."""
    network: str
    """Name of the network that the numbers are of: a key of "networks" in `published.yaml`."""

    def differs(self, run: dict[str, Any]) -> str:
        """Return in what the network of a result is another one than that of the published number; "" if it is the same.

        Older results of fine-tuning do not hold their network; these count as the same.
        """
        if (
            (about := run.get("evaluation") or {})
            and "spec" in about
            and not self._same(spec := spec_from(about["spec"]))
        ):
            return f"that is of {self.network}, this of {spec.title}"
        for name, value in (_table()["inputs"].get(run["protocol"]) or {}).items():
            found = about.get("stride") if name == "stride" else (about.get("images") or {}).get(name)
            if found not in (None, value):
                what = "cells" if name == "stride" else "inputs"
                return f"that is of {what} of {value} pixels, this of {found}"
        return ""

    def titled(self, run: dict[str, Any]) -> bool:
        """Return whether the title fits a result: one that names its network is for that network alone."""
        spec = (run.get("evaluation") or {}).get("spec")
        return spec is None or self.network not in self.title or self._same(spec_from(spec))

    def _same(self, spec: Spec) -> bool:
        network = networks()[self.network]
        if isinstance(spec, NamedSpec):
            known = spec.family == "timm" and spec.function.partition(".")[0] in network["timm"]
            return known and spec.options.keys() <= ONLY_SIZES
        fields = network.get("fields", {})
        return bool(fields) and all(getattr(spec, name, None) == value for name, value in fields.items())


ONLY_SIZES = {"img_size", "dynamic_img_size"}
"""Options of timm's networks that change the images they take, but not what they are."""


def networks() -> dict[str, dict[str, Any]]:
    """Return the networks of published numbers: their "fields" in a spec (if it has any), and their names in "timm"."""
    return _table()["networks"]


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
        rows[label] = Published(label, row["title"], row["values"], sources, row["network"])
    return rows
