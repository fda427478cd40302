"""Backend that makes views several times as fast as `pretrain.data.pil`, with OpenCV's colours and PyTorch's resizing.

Shapes: (H, W) image, S view size. Every operation does what its Pillow counterpart does, on integers of 8 bits: PyTorch's
resizing on uint8 is Pillow's own algorithm; OpenCV's colour conversions, matrices and blur differ from Pillow by less than a
grey level on average (`tests/pretrain/test_backends.py`).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from pretrain.data.augment import Changes, Jitter
from pretrain.data.jpeg import decode_jpeg
from pretrain.data.pixels import PixelRange, decode
from pretrain.data.views import Crop, ViewPlan

cv2.setNumThreads(0)  # the data workers are the parallelism; threads of its own would also not survive their fork

GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Share of red, green and blue in the brightness, as in Pillow's mode L (ITU-R 601)."""
REACH = 2.5
"""Reach of the blur in standard deviations."""
TRUNCATE = -0.4999
"""Added before OpenCV rounds, because Pillow's blending cuts off instead."""


def load(data: bytes, name: str, pixel_range: PixelRange | None) -> np.ndarray:
    """Decode the bytes of an image file to (H, W, 3) uint8, see `pretrain.data.pixels.decode`."""
    pixels = decode_jpeg(data, name)
    return np.asarray(decode(data, name, pixel_range)) if pixels is None else pixels


def render(image: np.ndarray, plan: ViewPlan, size: int) -> np.ndarray:
    """Return the view (S, S, 3) uint8 of ``image`` (H, W, 3) uint8, S = ``size``."""
    return change(cut(image, plan.crop, size), plan.changes)


def cut(image: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """Cut ``crop`` out of ``image`` (H, W, 3), resize it (bilinear, antialiased), and flip it if the crop says so."""
    part = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    part = part if part.flags.writeable else part.copy()  # PyTorch warns of arrays that it must not write to
    channels_last = torch.from_numpy(part).permute(2, 0, 1)[None]
    view = F.interpolate(channels_last, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return cv2.flip(view, 1) if crop.flipped else view


def change(view: np.ndarray, changes: Changes) -> np.ndarray:
    """Apply ``changes`` to ``view`` (S, S, 3)."""
    for name, amount in changes.jitter:
        view = _jitter(view, name, amount)
    if changes.grey:
        view = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if changes.blur:
        side = 2 * math.ceil(REACH * changes.blur) + 1
        view = cv2.GaussianBlur(view, (side, side), changes.blur, borderType=cv2.BORDER_REPLICATE)
    if changes.solarise:
        view = np.minimum(view, 255 - view)  # what is above 127 is inverted
    return view


def _jitter(view: np.ndarray, name: Jitter, amount: float) -> np.ndarray:
    """Blend with black, with the mean grey or with the grey version of ``view``, or turn its hue."""
    if name == "hue":
        hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL)
        turn = np.zeros_like(hsv)
        turn[..., 0] = np.int32(amount * 255).astype(
            np.uint8
        )  # uint8 wraps round as the circle does; as in torchvision
        np.add(hsv, turn, out=hsv)  # five times as fast as adding to the first channel alone
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    matrix = np.zeros((3, 4), dtype=np.float32)
    matrix[:, :3] = amount * np.eye(3, dtype=np.float32)
    matrix[:, 3] = TRUNCATE
    if name == "contrast":
        mean = int(cv2.mean(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY))[0] + 0.5)
        matrix[:, 3] += (1 - amount) * mean
    elif name == "saturation":
        matrix[:, :3] += (1 - amount) * GREY
    return cv2.transform(view, matrix)
