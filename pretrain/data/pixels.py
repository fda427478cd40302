"""Decode images to RGB with 8 bits. Images with more bits are scaled by a range of values, never cut off at 255.

Wide images are those of Pillow's modes I;16 (16 bits; also I;16B, I;16L, I;16N), I (32 bits) and F (floats); all are grey.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pixbench.errors import UserError, printable

PixelRange = tuple[float, float]
"""The values of wide images that become 0 and 255."""
SHORT = ("I;16", "I;16B", "I;16L", "I;16N")
WIDE = (*SHORT, "I", "F")
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
            f"{bits} (mode {self.mode}, e.g. {printable(self.name)}): {_number(self.low)}..{_number(self.high)} becomes 0..255 "
            "(data.pixel_range)"
        )


def decode(data: bytes, name: str, pixel_range: PixelRange | None = None) -> Image.Image:
    """Decode the bytes of an image file to RGB. Without a range, images of 16 bits have the range 0 to 65535.

    Raises:
        UserError: The bytes are not a valid image, or it is a wide one that has no range or a value that is not finite. The
            message contains ``name``.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in WIDE:
                return _narrowed(image, name, pixel_range)
            return image.convert("RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many types of errors for broken files
        reason = "it is empty" if not data else str(error).replace("\n", " ").partition(" <_io.")[0] or repr(error)
        raise UserError(
            f"image {name} is broken ({reason}); replace it, or delete it (pre-training that has begun goes on without it), then "
            "start again"
        ) from error


def find_range(root: Path, names: Sequence[str]) -> FoundRange | None:
    """Return the range of the wide images among a sample of the images ``names`` below ``root``; None if none is wide.

    Whole numbers: 0 to 2^k − 1 with the smallest k of `BITS` that holds them, or lowest to highest if some are negative.
    Floats: the first of `FLOATS` that holds them, or lowest to highest.

    Raises:
        UserError: There are whole numbers and floats, or a value that is not finite.
    """
    count = min(SAMPLE, len(names))
    first: tuple[str, str] | None = None
    low, high = np.inf, -np.inf
    for name in (names[i * len(names) // count] for i in range(count)):
        try:
            with Image.open(root / name) as image:  # reads only the head of the file
                if image.mode not in WIDE:
                    continue
                mode, values = image.mode, np.asarray(image)
        except Exception:  # a broken image is an error when its turn comes
            continue
        _refuse_not_finite(values, str(root / name))
        first = first or (mode, name)
        if (mode == "F") != (first[0] == "F"):
            raise UserError(
                f"images {first[1]} (mode {first[0]}) and {name} (mode {mode}) hold whole numbers and floats, which have no "
                "range in common; set data.pixel_range, or save them in one mode"
            )
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if first is None:
        return None
    usual = FLOATS if first[0] == "F" else [(0, 2**bits - 1) for bits in BITS]
    found = next(((a, b) for a, b in usual if a <= low and high <= b), (low, max(high, np.nextafter(low, np.inf))))
    return FoundRange(float(found[0]), float(found[1]), *first)


def to_8_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale ``values`` to uint8; those outside of ``low`` to ``high`` become 0 or 255.

    Whole numbers become ⌊256 (v − low) / (high + 1 − low)⌋: for 0 to 65535 their upper 8 bits, as libpng and OpenCV make
    them. Floats become 255 (v − low) / (high − low), rounded.
    """
    above = np.clip(values.astype(np.float64), low, high) - low
    if np.issubdtype(values.dtype, np.integer):
        return np.floor(above * 256 / (high + 1 - low)).astype(np.uint8)
    return np.rint(above / (high - low) * 255).astype(np.uint8)


def _narrowed(image: Image.Image, name: str, pixel_range: PixelRange | None) -> Image.Image:
    """Return the wide ``image`` in RGB."""
    if pixel_range is None and image.mode not in SHORT:
        raise UserError(
            f"image {name} is of mode {image.mode}, and the range of its values is not known; give it as data.pixel_range "
            "in pre-training, or save the image with 8 bits"
        )
    low, high = pixel_range or (0, 65535)
    values = np.asarray(image)
    _refuse_not_finite(values, name)
    if values.min() < low or values.max() > high:
        _say_once(name, image.mode, values, (low, high))
    return Image.fromarray(to_8_bits(values, low, high)).convert("RGB")


def _refuse_not_finite(values: np.ndarray, name: str) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"image {name} holds NaN or infinity; replace these values, or delete it, then start again")


_said: list[str] = []
"""Ranges that this process has said are exceeded."""


def _say_once(name: str, mode: str, values: np.ndarray, pixel_range: PixelRange) -> None:
    text = f"{_number(pixel_range[0])}..{_number(pixel_range[1])}"
    if text not in _said:
        _said.append(text)
        print(
            f"image {printable(name)} (mode {mode}) has values from {_number(values.min())} to {_number(values.max())}; what is "
            f"outside of data.pixel_range {text} becomes 0 or 255, here and in further images",
            file=sys.stderr,
            flush=True,
        )


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{float(value):g}"
