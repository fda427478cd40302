"""Save the images of the mini world with fixed settings, so that the same pixels always give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def save_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Save ``pixels`` (H, W, 3) as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", quality=92, subsampling=0)


def save_png(path: Path, pixels: NDArray[Any], palette: list[int] | None = None) -> None:
    """Save ``pixels`` (H, W[, 3]) as PNG; with a ``palette`` (flat list of RGB values) as an indexed image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    image.save(path, "PNG", compress_level=3)
