"""Features of a frozen backbone.

Shapes: n images, C channels of C5.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pixbench.errors import UserError
from pretrain.data.centre_crops import Crops
from pretrain.data.folders import SUFFIXES, class_names, split_folder
from pretrain.data.pixel_range import find_range
from pretrain.data.sources import Source, classes_in
from pretrain.models.resnet import build_resnet
from transfer.weights.backbone import Backbone


class Frozen(nn.Module):
    """A backbone in eval mode without gradients: images (n, 3, H, W) in RGB, 0 to 255 -> C5 (n, C, h, w).

    The images get the channel order and the normalisation that the backbone was trained with (`Backbone.pixels`).

    Args:
        backbone: a ResNet.
        output_stride: output stride that replaces the backbone's own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, output_stride: int | None = None) -> None:
        super().__init__()
        self.network = build_resnet(
            replace(backbone.resnet, output_stride=output_stride or backbone.resnet.output_stride)
        )
        self.network.load_state_dict(backbone.state)
        self.reverse = backbone.pixels.order == "BGR"
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(backbone.pixels, name)).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return C5 (n, C, h, w) of ``images`` (n, 3, H, W)."""
        images = images.to(self.mean)
        return self.network(((images.flip(1) if self.reverse else images) - self.mean) / self.std)


@torch.inference_mode()
def embed(model: Frozen, source: Source, size: int, batch: int, workers: int) -> Tensor:
    """Return C5 of every image of ``source``, averaged over its cells, in the order of ``source``: (n, C) float32."""
    loader = DataLoader(Crops(source, size), batch_size=batch, num_workers=workers)
    return torch.cat([model(images).mean((2, 3)) for images in loader])


def class_folders(home: Path) -> tuple[Source, Source]:
    """Open the class folders ``home``/train and ``home``/val, in any capitals; hidden folders are no classes.

    Images of more than 8 bits are scaled in both by the range that those in train have.

    Raises:
        UserError: One is missing, holds a class without images, or they do not hold the same classes.
    """
    splits = {split: split_folder(home, split) for split in ("train", "val")}
    sources: list[Source] = []
    for split, folder in splits.items():
        if folder is None:
            what = "is missing" if home.is_dir() else f"is missing, as {home} is not a folder"
            raise UserError(
                f"{home / split} {what}; it must hold a folder of images for each class: put them there, or generate a mini "
                "world (pixbench data mini --root DIR)"
            )
        source = Source(classes_in(folder, class_names(folder, "the folder")))
        if not source or source.index.empty:
            where = folder / source.index.empty[0] if source.index.empty else folder
            raise UserError(
                f"{where} holds no images ({', '.join(SUFFIXES)}); {folder} must hold a folder of images for each class"
            )
        sources.append(source)
    first, second = ({Path(name).parts[0] for name in source.names} for source in sources)
    if differ := sorted(first ^ second):
        capitals = {name.casefold() for name in first} == {name.casefold() for name in second}
        raise UserError(
            f"{splits['train']} and {splits['val']} contain different classes ({', '.join(differ[:5])}); "
            f"{'give them the same capitals' if capitals else 'add the missing ones'}"
        )
    found = find_range(sources[0])
    pixel_range = (found.low, found.high) if found else None
    train, val = (replace(source, pixel_range=pixel_range) for source in sources)
    return train, val
