"""Decode JPEG files with libjpeg-turbo directly: the same pixels as Pillow, a quarter faster."""

from __future__ import annotations

import numpy as np
import simplejpeg

from pretrain.data.pixels import check_size


def decode_jpeg(data: bytes, name: str) -> np.ndarray | None:
    """Return the pixels (H, W, 3) uint8 of a JPEG file in colour or grey; None for all else, and for what is damaged.

    What to do with those is Pillow's part (`pretrain.data.pixels.decode`): it reads more kinds, and its messages are for people.
    The orientation that a camera noted is not applied.

    Raises:
        BrokenImage: The image ``name`` has too many pixels.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        check_size(width, height, name)
        if space in ("CMYK", "YCCK"):
            return None
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        return None
