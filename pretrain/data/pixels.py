"""Decode images to RGB with 8 bits. Images with more bits are scaled by a range of values, never cut off at 255.

Wide images are those of Pillow's modes I;16 (16 bits; also I;16B, I;16L, I;16N), I (32 bits) and F (floats); all are grey.
"""

from __future__ import annotations

import io
import sys
import warnings

import numpy as np
from PIL import Image

from pixbench.errors import UserError, printable

PixelRange = tuple[float, float]
"""The values of wide images that become 0 and 255."""
SHORT = ("I;16", "I;16B", "I;16L", "I;16N")
WIDE = (*SHORT, "I", "F")
MOST_PIXELS = 178_956_970
"""Number of pixels above which an image is taken for a decompression bomb: Pillow's own limit for an error."""


class BrokenImage(UserError):
    """The bytes of an image cannot be read or decoded. Training can go on without the image."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """What is wrong, in a few words, without the name of the image."""


def decode(data: bytes, name: str, pixel_range: PixelRange | None = None) -> Image.Image:
    """Decode the bytes of an image file to RGB. Without a range, images of 16 bits have the range 0 to 65535.

    Of an animation, it is the first picture. An orientation in EXIF data is not applied.

    Raises:
        BrokenImage: They are not a valid image, or it has more than `MOST_PIXELS` pixels or a value that is not finite.
        UserError: It is a wide image that has no range. Both messages contain ``name``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, or of sizes that are checked below
            with Image.open(io.BytesIO(data)) as image:
                check_size(image.width, image.height, name)
                if image.mode in WIDE:
                    return _narrowed(image, name, pixel_range)
                return image.convert("RGB")
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise many types of errors for broken files
        said = "it is empty" if not data else str(error).replace("\n", " ").partition(" <_io.")[0] or repr(error)
        raise broken(name, said) from error


def check_size(width: int, height: int, name: str) -> None:
    """Raise `BrokenImage` if an image of width × height pixels is too large to be decoded."""
    if width * height > MOST_PIXELS:
        raise broken(name, f"it has {width} × {height} pixels, more than {MOST_PIXELS}")


def broken(name: str, reason: str) -> BrokenImage:
    """Return the error of the image ``name``, which is broken because of ``reason``."""
    return BrokenImage(
        f"image {name} is broken ({reason}); replace or delete it, then start the same command again (a run that has begun takes "
        "another image in place of a deleted one)",
        reason,
    )


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
        raise BrokenImage(
            f"image {name} holds NaN or infinity; replace these values or delete it, then start the same command again",
            "it holds NaN or infinity",
        )


_said: list[str] = []
"""Ranges that this process has said are exceeded."""


def _say_once(name: str, mode: str, values: np.ndarray, pixel_range: PixelRange) -> None:
    text = f"{shown(pixel_range[0])}..{shown(pixel_range[1])}"
    if text not in _said:
        _said.append(text)
        print(
            f"image {printable(name)} (mode {mode}) has values from {shown(values.min())} to {shown(values.max())}; what is "
            f"outside of data.pixel_range {text} becomes 0 or 255, here and in further images",
            file=sys.stderr,
            flush=True,
        )


def shown(value: float) -> str:
    """Return ``value`` without needless decimals."""
    return str(int(value)) if float(value).is_integer() else f"{float(value):g}"
