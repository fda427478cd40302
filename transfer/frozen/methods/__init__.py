"""The methods of frozen evaluation, one file each.

A method has ``Settings``, a dataclass of what its publication fixes; ``SPLITS``, the splits whose features it reads; and
``evaluate(splits, settings, run) -> Measured``. It may have ``choose(scenes, split) -> Scenes``, the pictures that it uses.
"""

from __future__ import annotations

from typing import Any

from transfer.frozen.methods import classification, foreground, logistic, neighbours, overcluster

METHODS: dict[str, Any] = {
    "classification": classification,
    "neighbours": neighbours,
    "logistic": logistic,
    "overcluster": overcluster,
    "foreground": foreground,
}
"""Value of "method" in a config of `configs/frozen/` -> its module."""
