"""Features of a frozen trunk.

Shapes: n images, C channels of C5, S side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pretrain.data.augment import MEAN, STD
from pretrain.data.sources import Source, open_source
from pretrain.errors import UserError
from pretrain.models.resnet import ResNet
from transfer.weights.trunk import Trunk


def frozen(trunk: Trunk, device: torch.device, output_stride: int | None = None) -> ResNet:
    """``trunk`` as a module in eval mode without gradients; ``output_stride``: other than its own."""
    model = replace(trunk.resnet, output_stride=output_stride or trunk.resnet.output_stride).build()
    model.load_state_dict(trunk.state)
    return model.eval().requires_grad_(False).to(device)


@dataclass(frozen=True)
class Crops(Dataset[Tensor]):
    """Image -> (3, S, S): shorter side resized to 8/7 S (256 for 224), centre cropped, ImageNet normalisation."""

    source: Source
    size: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        steps = [v2.Resize(round(self.size * 8 / 7)), v2.CenterCrop(self.size), v2.PILToTensor()]
        return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])(
            self.source.load(index)
        )


@torch.inference_mode()
def embed(model: ResNet, source: Source, size: int, batch: int, workers: int) -> Tensor:
    """C5 averaged over its cells for every image of ``source``, in its order: (n, C) float32."""
    device = next(model.parameters()).device
    loader = DataLoader(Crops(source, size), batch_size=batch, num_workers=workers)
    return torch.cat([model(images.to(device)).mean((2, 3)) for images in loader])


def class_folders(home: Path) -> tuple[Source, Source]:
    """``home``/train and ``home``/val. Raises `UserError` if they do not hold the same classes."""
    train, val = open_source(home / "train"), open_source(home / "val")
    first, second = ({Path(name).parts[0] for name in source.names} for source in (train, val))
    if differ := sorted(first ^ second):
        raise UserError(f"{home}/train and {home}/val hold different classes ({', '.join(differ[:5])}); complete them")
    return train, val
