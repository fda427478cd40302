"""Intervals over the images of the test set, where results store what they measured on each."""

from __future__ import annotations

import math

from benchmarks.statistics.images import over_images
from benchmarks.statistics.intervals import Estimate, over_seeds
from benchmarks.tables.collected import Entry
from pixbench.results import per_image

CLOSE = 0.01
"""Largest difference between a metric of the stored values of all images and the recorded one, in its unit: rounding."""


def over_images_of(entry: Entry, metric: str) -> Estimate:
    """Return the mean of a row as `over_seeds` does, with the interval over images in place of that over seeds.

    There is none for a metric that is no mean or mean IoU of stored values, such as AP.
    """
    found = over_seeds(entry.samples(metric))
    arrays = [held for path in entry.paths if (held := per_image(path, metric)) is not None]
    if len(arrays) < len(entry.runs) or not all("value" in held or "union" in held for held in arrays):
        return Estimate(found.mean, found.std, found.n, reason="no values of single images are stored")
    images = over_images(arrays)
    if not math.isclose(images.mean, found.mean, abs_tol=CLOSE):  # another formula, such as that of mAcc
        return Estimate(found.mean, found.std, found.n, reason="it does not follow from the stored values of images")
    return Estimate(found.mean, found.std, found.n, images.low, images.high, images.reason)
