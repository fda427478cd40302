"""Strong augmentation of unlabelled pictures: CutMix, cutout and ClassMix. Shapes: B pictures of H × W pixels."""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = 255


def rectangle_mask(height: int, width: int) -> Tensor:
    """Return a mask (H, W) that is False in a random rectangle of half the area, which is wider than half the picture."""
    w = int(torch.randint(int(width / 2 + 1), width, ()))
    h = round(height * width / 2 / w)
    x, y = int(torch.randint(0, width - w + 1, ())), int(torch.randint(0, height - h + 1, ()))
    mask = torch.ones(height, width, dtype=torch.bool)
    mask[y : y + h, x : x + w] = False
    return mask


def class_mask(labels: Tensor) -> Tensor:
    """Return a mask (H, W) that is True where ``labels`` (H, W) has one of a random half of its classes."""
    classes = labels.unique()
    chosen = classes[torch.randperm(len(classes), device=classes.device)[: len(classes) // 2]]
    return torch.isin(labels, chosen)


def mixed(images: Tensor, labels: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, H, W) and pseudo-labels (B, H, W) mixed with those of the next picture, or cut out.

    Where a picture's mask is True it stays. Elsewhere it becomes the next picture of the batch, or black and ignored ("cutout").
    """
    height, width = labels.shape[1:]
    masks = [class_mask(own) if mode == "classmix" else rectangle_mask(height, width) for own in labels]
    keep = torch.stack([mask.to(labels.device) for mask in masks])
    if mode == "cutout":
        return images * keep[:, None], labels.masked_fill(~keep, IGNORED)
    return torch.where(keep[:, None], images, images.roll(-1, 0)), torch.where(keep, labels, labels.roll(-1, 0))
