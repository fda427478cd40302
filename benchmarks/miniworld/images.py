"""Writing the pictures of the mini world: always with the same settings, so that the same pixels make the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def save_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=92, subsampling=0)


def save_png(path: Path, pixels: NDArray[Any], palette: list[int] | None = None) -> None:
    """Pixels (H, W[, 3]) as PNG; with a ``palette`` (RGB, flat) as an indexed picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    image.save(path, "PNG", compress_level=3)
