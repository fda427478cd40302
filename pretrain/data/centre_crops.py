"""Images as they are evaluated: one plain crop from the middle of each.

Shapes: S side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor

from pretrain.data.sources import Source


@dataclass(frozen=True)
class Crops(Dataset[Tensor]):
    """Images (3, S, S) in RGB, 0 to 255: shorter side resized to 8/7 S (256 for 224), then centre-cropped."""

    source: Source
    size: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        return pil_to_tensor(centre_crop(self.source.load(index), self.size))


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return what torchvision's Resize(8/7 S) and CenterCrop(S) return, without the parts that are cut off.

    Of a strip of 1 × 20,000 pixels these would be 6 GB.
    """
    shorter, (width, height) = round(size * 8 / 7), image.size
    whole = [int(shorter * side / min(width, height)) for side in (width, height)]
    start = [round((side - size) / 2) for side in whole]
    left, top = (at * side / large for at, side, large in zip(start, image.size, whole, strict=True))
    right, bottom = ((at + size) * side / large for at, side, large in zip(start, image.size, whole, strict=True))
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
