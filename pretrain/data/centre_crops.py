"""Images as they are evaluated: one plain crop from the middle of each.

Shapes: S side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from pretrain.data.sources import Source


@dataclass(frozen=True)
class Crops(Dataset[Tensor]):
    """Images (3, S, S) in RGB, 0 to 255: shorter side resized to 8/7 S (256 for 224), then centre-cropped."""

    source: Source
    size: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        steps = [v2.Resize(round(self.size * 8 / 7)), v2.CenterCrop(self.size), v2.PILToTensor()]
        return v2.Compose(steps)(self.source.load(index))
