"""Colour changes and normalisation of a whole batch, on any device: the same changes as `pretrain.data.pil`, as tensors.

With `augment.device` cuda, the data workers only decode, crop and resize. They send what they drew for each view as a row of
numbers (`packed`), and the GPU changes all views of a batch together.

Shapes: B images, S view size, b the images of a batch that get the same change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data.augment import BLUR_RADIUS, MEAN, STD, Changes, Jitter

KINDS: tuple[Jitter, ...] = get_args(Jitter)
PLACES = len(KINDS)
"""Places in the order of the jitter; a row has a kind and an amount for each, then greyscale, blur and solarise."""
REACH = math.ceil(2.5 * BLUR_RADIUS[1])
"""Pixels that the widest blur reaches to each side."""


def packed(changes: Sequence[Changes]) -> Tensor:
    """Return a row of 11 numbers for each of ``changes``, (B, 11) float32 on the CPU. A kind of −1 stands for no change."""
    return torch.tensor([_row(each) for each in changes], dtype=torch.float32)


def _row(changes: Changes) -> list[float]:
    jitter = [(float(KINDS.index(kind)), amount) for kind, amount in changes.jitter] or [(-1.0, 0.0)] * PLACES
    kinds, amounts = zip(*jitter, strict=True)
    return [*kinds, *amounts, float(changes.grey), changes.blur, float(changes.solarise)]


def change(images: Tensor, rows: Tensor) -> Tensor:
    """Return ``images`` (B, 3, S, S) in 0..255, changed as ``rows`` (B, 11) say, in float32.

    ``rows`` must be on the CPU: which images get which change is decided there, so that the device need not be asked.
    """
    images = images.float()
    for place in range(PLACES):
        kinds = rows[:, place]
        for number, kind in enumerate(KINDS):
            _apply(images, kinds == number, _JITTER[kind], rows[:, PLACES + place])
    grey, blur, solarise = rows[:, -3], rows[:, -2], rows[:, -1]
    _apply(images, grey > 0, lambda x, _: _luma(x).expand_as(x), grey)
    _apply(images, blur > 0, _blurred, blur)
    _apply(images, solarise > 0, lambda x, _: torch.where(x < 128, x, 255 - x), solarise)
    return images


def normalised(images: Tensor) -> Tensor:
    """Return ``images`` (B, 3, S, S) in 0..255 as float32: divided by 255, minus `MEAN`, divided by `STD`.

    Pixels stay next to their channels in memory (channels_last), and whole lines of them are worked on at a time.
    """
    pixels = images.permute(0, 2, 3, 1)
    count, height, width, _ = pixels.shape
    mean, std = _lines(width, images.device)
    lines = pixels.reshape(count * height, -1).to(torch.float32, copy=True)
    return lines.div_(255).sub_(mean).div_(std).view(count, height, width, 3).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _lines(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `MEAN` and `STD` once for each pixel of a line, (3 · width,)."""
    mean, std = (torch.tensor(values, dtype=torch.float32).repeat(width).to(device) for values in (MEAN, STD))
    return mean, std


def _apply(images: Tensor, which: Tensor, change: Callable[[Tensor, Tensor], Tensor], amounts: Tensor) -> None:
    """Replace the images at ``which`` by ``change`` of them and of their ``amounts`` (b, 1, 1, 1)."""
    places = which.nonzero()[:, 0]
    if len(places):
        chosen = places.to(images.device, non_blocking=True)
        amount = amounts[places].view(-1, 1, 1, 1).to(images.device, non_blocking=True)
        images[chosen] = change(images[chosen], amount)


def _luma(x: Tensor) -> Tensor:
    """Return the brightness (b, 1, S, S), as in Pillow's mode L (ITU-R 601)."""
    red, green, blue = x.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _blend(x: Tensor, other: Tensor | float, amount: Tensor) -> Tensor:
    """Mix with ``other`` and cut off what follows the point, as Pillow does: else four changes would add two grey levels."""
    return (amount * x + (1 - amount) * other).clamp(0, 255).floor()


def _turned(x: Tensor, amount: Tensor) -> Tensor:
    """Turn the hue by ``amount`` of the colour circle, in steps of 1/255 as in torchvision."""
    amount = (amount * 255).trunc() / 255
    high, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    spread = high - low
    red, green, blue = x.split(1, dim=1)
    divisor = spread.clamp(min=1e-6)
    sixth = torch.where(
        red == high,
        (green - blue) / divisor,
        torch.where(green == high, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixth = sixth + 6 * amount
    # A channel is high within a sixth of its own hue, low beyond two sixths, and linear in between.
    channels = [high - spread * _far(sixth - own) for own in (0, 2, 4)]
    return torch.cat(channels, dim=1)


def _far(sixths: Tensor) -> Tensor:
    """Return 0 within 1, 1 beyond 2, and linear in between, of the distance on a circle of 6."""
    around = sixths.remainder(6)
    return (torch.minimum(around, 6 - around) - 1).clamp(0, 1)


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur with a Gaussian kernel of its own for each image; the border is repeated."""
    count, channels, height, width = x.shape
    offsets = torch.arange(-REACH, REACH + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma.view(-1, 1) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]  # (3b, 1, taps)
    planes = F.pad(x, (REACH,) * 4, mode="replicate").reshape(
        1, count * channels, height + 2 * REACH, width + 2 * REACH
    )
    across = F.conv2d(planes, kernel[:, :, None], groups=count * channels)
    return F.conv2d(across, kernel[..., None], groups=count * channels).view_as(x)


_JITTER: dict[Jitter, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda x, amount: _blend(x, 0.0, amount),
    "contrast": lambda x, amount: _blend(x, _luma(x).mean((1, 2, 3), keepdim=True).round(), amount),
    "saturation": lambda x, amount: _blend(x, _luma(x), amount),
    "hue": _turned,
}
