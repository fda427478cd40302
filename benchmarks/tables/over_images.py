"""Intervals over the images of the test set, where results store what they measured on each."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from benchmarks.statistics.images import over_images
from benchmarks.statistics.intervals import Estimate, over_seeds
from benchmarks.tables.collected import Entry
from pixbench.errors import UserError
from pixbench.results import per_image
from transfer.detection.matches import only

CLOSE = 0.01
"""Largest difference between a metric of the stored values of all images and the recorded one, in its unit: rounding."""


def over_images_of(entry: Entry, metric: str) -> Estimate:
    """Return the mean of a row as `over_seeds` does, with the interval over images in place of that over seeds.

    It is that of a mean, a mean IoU or an AP of stored values. If there is none, ``reason`` says why.
    """
    found = over_seeds(entry.samples(metric))
    written = tuple((path, run.get("digest", "")) for path, run in zip(entry.paths, entry.runs, strict=True))
    images = Estimate(found.mean, None, 0, reason=entry.undefined(metric))
    if not images.reason:
        images = _of_runs(written, metric)
        if not images.reason and not math.isclose(images.mean, found.mean, abs_tol=CLOSE):  # such as that of mAcc
            images = Estimate(found.mean, None, 0, reason="it does not follow from the stored values of images")
    return Estimate(found.mean, found.std, found.n, images.low, images.high, images.reason)


@cache
def _of_runs(written: tuple[tuple[Path, str], ...], metric: str) -> Estimate:
    """Return the mean over the runs with these result files and digests, with its interval; it takes long, so it is kept."""
    try:
        arrays = [held for path, _ in written if (held := per_image(path, metric)) is not None]
        if len(arrays) < len(written):
            return Estimate(math.nan, None, 0, reason="no values of single images are stored")
        return over_images([only(held, metric) if "right" in held else held for held in arrays])
    except UserError as error:  # a stored file is missing or damaged, or the runs saw different images
        return Estimate(math.nan, None, 0, reason=str(error))
