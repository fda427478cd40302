"""Small pictures that a run keeps beside its result, as JPEG files in arrays of bytes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SIDE = 320
"""Longest side of a small picture in pixels."""
QUALITY = 80
"""Of JPEG, from 0 to 95."""


def small(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """Return ``picture`` in RGB, made smaller if its longest side has more than ``side`` pixels."""
    scale = min(1.0, side / max(picture.size))
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def to_jpeg(picture: Image.Image) -> np.ndarray:
    """Return the bytes of ``picture`` as a JPEG file, (n,) uint8."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return np.frombuffer(stream.getvalue(), np.uint8)
