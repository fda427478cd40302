"""How pictures and their label maps become the inputs of a network, the same in every run.

Shapes: H × W pixels of an input.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from pixbench.errors import UserError
from pretrain.data.centre_crops import centre_crop
from transfer.frozen.limits import need
from transfer.frozen.scenes import Pictures, Scenes

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Images:
    """What decides the features of a picture, besides the backbone."""

    size: int = 224
    """Side in pixels of a squashed input, or shorter side of one that keeps its aspect ratio; not used by "native", "padded"."""
    resize: Literal["squash", "shorter", "native", "padded", "centre"] = "squash"
    """squash: to a square, whatever the aspect ratio. shorter: keep the aspect ratio. native: keep the size. padded: keep the
    size; right and below, the network adds zeros after normalisation up to whole cells. centre: shorter side to 8/7 of the size
    (256 for 224), then the crop in the middle."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter for pictures, with antialiasing; label maps always get the nearest pixel."""
    pool: bool = False
    """Whether the features of a picture are averaged over its cells."""
    output_stride: int | None = None
    """Side in pixels of a cell; None for that of the backbone."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of R, G and B (of 0 to 255) that replaces that of the backbone."""

    def __post_init__(self) -> None:
        need(self, "size", "output_stride", least=1)
        need(self, "std", above=0)

    def without_effect(self) -> dict[str, str]:
        """Return the keys that have no effect on whole pictures beside the others, each with the reason."""
        if self.resize in ("native", "padded"):
            why = f"images.resize {self.resize} keeps the size of pictures"
            return dict.fromkeys(("images.size", "images.interpolation"), why)
        if self.resize == "centre":
            return {"images.interpolation": "images.resize centre has a filter of its own"}
        return {}


@dataclass(frozen=True)
class Views(Dataset[Tensor]):
    """The inputs of a split: picture i of `len` pictures as (3, H, W) uint8 in RGB."""

    pictures: Pictures
    images: Images

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def scenes(self) -> Scenes:
        """The pictures, if they have label maps or annotation files."""
        assert isinstance(self.pictures, Scenes)
        return self.pictures

    def shape(self, index: int) -> tuple[int, int]:
        """Return H and W of input ``index``. At most the header of the picture is read."""
        if self.images.resize in ("squash", "centre"):
            return self.images.size, self.images.size
        return _resized(self.images, self.pictures.size(index))

    def __getitem__(self, index: int) -> Tensor:
        picture = self.pictures.picture(index)
        if self.images.resize == "centre":
            return pil_to_tensor(centre_crop(picture, self.images.size))
        height, width = _resized(self.images, picture.size)
        if picture.size != (width, height):
            picture = picture.resize((width, height), FILTERS[self.images.interpolation])
        return pil_to_tensor(picture)

    def labels(self, index: int, corner: bool = False) -> np.ndarray:
        """Return the label map of input ``index`` at the size of the input: (H, W) uint8. See `resized_labels` for ``corner``."""
        labels = self.scenes.label_map(index)
        height, width = _resized(self.images, labels.shape[::-1])
        return resized_labels(labels, (height, width), corner)

    def about(self) -> dict[str, Any]:
        """Return what decides the inputs besides the files of the pictures, as plain data."""
        return asdict(self.images)


def need_whole_maps(images: Images, where: str) -> None:
    """Raise UserError, which begins with ``where``, unless each cell of a map is a place in the whole picture."""
    if images.pool or images.resize == "centre":
        raise UserError(
            f"{where}: this protocol compares the cells of whole pictures; leave out images.pool, and set images.resize to "
            "squash, shorter, native or padded"
        )


def need_whole_cells(views: Views, stride: int) -> None:
    """Raise UserError unless all inputs consist of whole cells of ``stride`` pixels, so that each cell has its own labels."""
    for index in range(len(views)):
        need_whole(*views.shape(index), stride, views.pictures.name)


def need_whole(height: int, width: int, stride: int, name: str) -> None:
    """Raise UserError unless an input of the data set ``name`` consists of whole cells of ``stride`` pixels."""
    if height % stride or width % stride:
        raise UserError(
            f"the inputs of {name} have {height} × {width} pixels, which is no multiple of the {stride} "
            "pixels of a cell, but this method needs whole cells; set images.resize to squash and images.size to a multiple "
            f"of {stride}"
        )


def _resized(images: Images, size: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of the input that a picture of ``size`` (width, height) becomes, if it is not cropped."""
    width, height = size
    if images.resize in ("native", "padded"):
        return height, width
    if images.resize == "squash":
        return images.size, images.size
    scale = images.size / min(width, height)
    return round(height * scale), round(width * scale)


def resized_labels(labels: np.ndarray, shape: tuple[int, int], corner: bool = False) -> np.ndarray:
    """Return a label map (H, W) in another ``shape``.

    Each pixel takes the label in its middle, as Pillow does it, or in its upper left corner, as PyTorch's "nearest" does.
    """
    if labels.shape == shape:
        return labels
    if corner:
        return F.interpolate(torch.from_numpy(labels)[None, None], size=shape, mode="nearest")[0, 0].numpy()
    return np.array(Image.fromarray(labels).resize(shape[::-1], Image.Resampling.NEAREST))
