"""Backend that makes views with Pillow and torchvision, with the operations of the official PixPro code.

Shapes: (H, W) image, S view size.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as F

from pretrain.data.augment import Changes
from pretrain.data.pixels import PixelRange, decode
from pretrain.data.views import Crop, ViewPlan

JITTER = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


def load(data: bytes, name: str, pixel_range: PixelRange | None) -> np.ndarray:
    """Decode the bytes of an image file to (H, W, 3) uint8, see `pretrain.data.pixels.decode`."""
    return np.asarray(decode(data, name, pixel_range))


def render(image: np.ndarray, plan: ViewPlan, size: int) -> np.ndarray:
    """Return the view (S, S, 3) uint8 of ``image`` (H, W, 3) uint8, S = ``size``."""
    return np.asarray(change(cut(Image.fromarray(image), plan.crop, size), plan.changes))


def cut(image: Image.Image, crop: Crop, size: int) -> Image.Image:
    """Cut ``crop`` out of ``image``, resize it to size × size (bilinear, antialiased), and flip it if the crop says so.

    The image is cropped before it is resized: with `resize(box=...)`, pixels outside the crop would change the border.
    """
    right, bottom = crop.left + crop.width, crop.top + crop.height
    view = image.crop((crop.left, crop.top, right, bottom)).resize((size, size), Image.Resampling.BILINEAR)
    if crop.flipped:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return view


def change(view: Image.Image, changes: Changes) -> Image.Image:
    """Apply ``changes`` to ``view``."""
    for name, amount in changes.jitter:
        view = JITTER[name](view, amount)
    if changes.grey:
        view = view.convert("L").convert("RGB")
    if changes.blur:
        view = view.filter(ImageFilter.GaussianBlur(changes.blur))
    if changes.solarise:
        view = ImageOps.solarize(view)
    return view
