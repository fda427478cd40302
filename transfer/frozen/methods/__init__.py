"""The methods of frozen evaluation, one file each.

A method has ``Settings``, a dataclass of what its publication fixes; ``SPLITS``, the splits whose features it reads; and
``evaluate(splits, settings, run) -> Measured``. It may have ``crops(settings, seed) -> {name: (split, Crops)}``: further
views of a split, which it gets in ``splits`` under these names.
"""

from __future__ import annotations

from typing import Any

from transfer.frozen.methods import classification, discovery, statistics

METHODS: dict[str, Any] = {
    "classification": classification,
    "discovery": discovery,
    "statistics": statistics,
}
"""Value of "method" in a config of `configs/frozen/` -> its module."""
