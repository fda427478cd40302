"""Find the range of the values of images with more than 8 bits, from a sample of them."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixbench.errors import UserError, printable
from pretrain.data.pixels import MOST_PIXELS, SHORT, WIDE, PixelRange, shown
from pretrain.data.sources import Source

SAMPLE = 256
"""Number of images from which the range is found."""
BITS = (8, 10, 12, 14, 16, 24, 32)
"""Numbers of bits that cameras, scanners and simulators give to whole numbers."""
FLOATS: tuple[PixelRange, ...] = ((0, 1), (0, 255), (0, 65535))
"""Ranges that are usual for floats."""


class FoundRange(NamedTuple):
    """A range, and the first image that showed that one is needed."""

    low: float
    high: float
    mode: str
    name: str

    def __str__(self) -> str:
        bits = "16-bit pictures" if self.mode in SHORT else "pictures"
        return (
            f"{bits} (mode {self.mode}, e.g. {printable(self.name)}): {shown(self.low)}..{shown(self.high)} becomes 0..255 "
            "(data.pixel_range)"
        )


def find_range(source: Source) -> FoundRange | None:
    """Return the range of the wide images among a sample of the images of ``source``; None if none is wide.

    Whole numbers: 0 to 2^k − 1 with the smallest k of `BITS` that holds them, or lowest to highest if some are negative.
    Floats: the first of `FLOATS` that holds them, or lowest to highest. Broken images are left out.

    Raises:
        UserError: There are whole numbers and floats.
    """
    count = min(SAMPLE, len(source))
    first: tuple[str, str] | None = None
    low, high = np.inf, -np.inf
    for index in (i * len(source) // count for i in range(count)):
        name, values = source.names[index], _wide_values(source, index)
        if values is None:
            continue
        mode, numbers = values
        first = first or (mode, name)
        if (mode == "F") != (first[0] == "F"):
            raise UserError(
                f"images {first[1]} (mode {first[0]}) and {name} (mode {mode}) hold whole numbers and floats, which have no "
                "range in common; set data.pixel_range, or save them in one mode"
            )
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
    if first is None:
        return None
    usual = FLOATS if first[0] == "F" else [(0, 2**bits - 1) for bits in BITS]
    found = next(((a, b) for a, b in usual if a <= low and high <= b), (low, max(high, np.nextafter(low, np.inf))))
    return FoundRange(float(found[0]), float(found[1]), *first)


def _wide_values(source: Source, index: int) -> tuple[str, np.ndarray] | None:
    """Return the mode and the values of an image if it is wide and not broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source.read(index))) as image:
                if image.mode not in WIDE or image.width * image.height > MOST_PIXELS:
                    return None
                values = np.asarray(image)
                return (image.mode, values) if np.isfinite(values).all() else None
    except Exception:  # a broken image is an error when its turn comes
        return None
