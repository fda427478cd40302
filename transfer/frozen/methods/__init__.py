"""The methods of frozen evaluation, one file each.

A method has ``Settings``, a dataclass of what its publication fixes; ``SPLITS``, the splits whose features it reads; and
``evaluate(splits, settings, run) -> Measured``. If it has ``WHOLE_CELLS``, inputs that do not consist of whole cells are
refused. It may have ``views(split, views, settings, seed) -> Views``, which chooses or changes the pictures of a split before
their features are computed; then a name in ``SPLITS`` may have a second word, such as "test crop" for other views of the same
pictures. ``POOLED`` is True if it reads features that are averaged over the cells of a picture; other methods need each cell.
``without_effect(images, settings)`` returns the keys of a config that change nothing beside the others, if these are not only
those of `Images.without_effect`.
"""

from __future__ import annotations

from typing import Any

from transfer.frozen.methods import (
    classification,
    discovery,
    foreground,
    incontext,
    logistic,
    neighbours,
    overcluster,
    statistics,
)

METHODS: dict[str, Any] = {
    "classification": classification,
    "incontext": incontext,
    "neighbours": neighbours,
    "logistic": logistic,
    "overcluster": overcluster,
    "foreground": foreground,
    "discovery": discovery,
    "statistics": statistics,
}
"""Value of "method" in a config of `configs/frozen/` -> its module."""
