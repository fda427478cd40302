"""The published pre-training pipeline of PixPro, written plainly: what the speed of this project is measured against.

Pillow and torchvision make the views, one loop runs over all parameters, distances and similarities are dense matrices, feature
maps are contiguous, and every step reads its loss. Definitions: `contrast/data/transform.py`, `contrast/data/transform_coord.py`,
`contrast/models/PixPro.py`, `contrast/lars.py` and `main_pretrain.py` of the official code, read and written anew here.

Shapes: B batch, S view size, C channels, N = H·W cells.
"""

from __future__ import annotations

import copy
import io
import math
import random

import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import ResNet

Made = tuple[Tensor, tuple[float, float, float, float]]
"""A view (3, S, S) and its box."""


class ViewMaker:
    """Cut, change and normalise one view of an image."""

    def __init__(self, size: int, blur: float, solarise: float) -> None:
        self.size, self.blur, self.solarise = size, blur, solarise
        self.jitter = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __call__(self, image: Image.Image) -> Made:
        """Return a random view of ``image``, and its box."""
        width, height = image.size
        top, left, h, w = transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        view = image.crop((left, top, left + w, top + h)).resize((self.size, self.size), Image.Resampling.BILINEAR)
        x1, y1 = left / (width - 1), top / (height - 1)
        x2, y2 = (left + w - 1) / (width - 1), (top + h - 1) / (height - 1)
        if random.random() < 0.5:
            view, x1, x2 = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT), x2, x1
        if random.random() < 0.8:
            view = self.jitter(view)
        if random.random() < 0.2:
            view = transforms.functional.to_grayscale(view, 3)
        if random.random() < self.blur:
            view = view.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        if random.random() < self.solarise:
            view = ImageOps.solarize(view)
        return self.normalise(view), (x1, y1, x2, y2)


def make_views(jpeg: bytes, makers: tuple[ViewMaker, ViewMaker]) -> tuple[Made, Made]:
    """Decode an image file, and return its two views with their boxes."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        image = opened.convert("RGB")
    return makers[0](image), makers[1](image)


def propagate(x: Tensor, transform: nn.Module) -> Tensor:
    """Propagate projections (B, C, H, W) with γ = 2 and a dense matrix of similarities."""
    unit = F.normalize(x, dim=1).flatten(2)
    similarity = torch.matmul(unit.transpose(1, 2), unit).clamp(min=0.0) ** 2
    values = F.normalize(transform(x), dim=1).flatten(2)
    return torch.matmul(similarity, values.transpose(1, 2)).transpose(1, 2).reshape(x.shape)


def consistency(query: Tensor, key: Tensor, box_q: Tensor, box_k: Tensor, threshold: float = 0.7) -> Tensor:
    """Return the loss of queries and keys (B, C, H, W), both normalised, with dense matrices of distances and cosines."""
    _, _, height, width = query.shape
    rows = torch.arange(height, dtype=box_q.dtype, device=query.device).view(1, height, 1).repeat(1, 1, width)
    columns = torch.arange(width, dtype=box_q.dtype, device=query.device).view(1, 1, width).repeat(1, height, 1)

    def centres(box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cell_w, cell_h = (box[:, 2] - box[:, 0]) / width, (box[:, 3] - box[:, 1]) / height
        x = (columns + 0.5) * cell_w.view(-1, 1, 1) + box[:, 0].view(-1, 1, 1)
        y = (rows + 0.5) * cell_h.view(-1, 1, 1) + box[:, 1].view(-1, 1, 1)
        return x.flatten(1), y.flatten(1), torch.sqrt(cell_w**2 + cell_h**2)

    x_q, y_q, diagonal_q = centres(box_q)
    x_k, y_k, diagonal_k = centres(box_k)
    across = (x_q[:, :, None] - x_k[:, None, :]) ** 2
    down = (y_q[:, :, None] - y_k[:, None, :]) ** 2
    distance = torch.sqrt(across + down) / torch.max(diagonal_q, diagonal_k).view(-1, 1, 1)
    positive = (distance < threshold).to(query.dtype)
    cosine = torch.bmm(query.flatten(2).transpose(1, 2), key.flatten(2))
    return -2 * ((cosine * positive).sum((1, 2)) / (positive.sum((1, 2)) + 1e-6)).mean()


def projector(channels: int, hidden: int, out: int) -> nn.Module:
    """Return 1×1 convolution, BN, ReLU, 1×1 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Conv2d(hidden, out, 1)
    )


class Trainer:
    """PixPro with LARS around ``backbone``, a torchvision ResNet.

    Args:
        backbone: network without its pooling and classifier: (B, 3, S, S) -> (B, channels, H, W).
        channels: its output channels.
        hidden: hidden channels of the projector.
        dim: output channels of the projector.
        steps: length of the schedules.
        device: where all of it is.
        fp16: mixed precision, as published. The gradients are scaled by a constant; that of the published code is adapted in
            every step, which takes more time.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        hidden: int = 4096,
        dim: int = 256,
        steps: int = 1000,
        device: str = "cpu",
        fp16: bool = False,
    ) -> None:
        self.encoder = nn.Sequential(backbone, projector(channels, hidden, dim)).to(device).train()
        self.momentum_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.transform = nn.Conv2d(dim, dim, 1).to(device)
        self.autocast, self.scale = torch.autocast(device, torch.float16, enabled=fp16), 1024.0 if fp16 else 1.0
        self.parameters = [*self.encoder.parameters(), *self.transform.parameters()]
        self.momentum_buffers: dict[int, Tensor] = {}
        self.step_number, self.steps = 0, steps

    def step(self, view1: Tensor, view2: Tensor, box1: Tensor, box2: Tensor) -> float:
        """Make one update and return the loss."""
        with self.autocast:
            pred1 = F.normalize(propagate(self.encoder(view1), self.transform), dim=1)
            pred2 = F.normalize(propagate(self.encoder(view2), self.transform), dim=1)
            with torch.no_grad():
                momentum = 1 - 0.01 * (math.cos(math.pi * self.step_number / self.steps) + 1) / 2
                pairs = zip(self.momentum_encoder.parameters(), self.encoder.parameters(), strict=True)
                for average, current in pairs:
                    average.data = average.data * momentum + current.data * (1 - momentum)
                key1 = F.normalize(self.momentum_encoder(view1), dim=1)
                key2 = F.normalize(self.momentum_encoder(view2), dim=1)
            loss = consistency(pred1, key2, box1, box2) + consistency(pred2, key1, box2, box1)
        for weight in self.parameters:
            weight.grad = None
        (loss * self.scale).backward()
        self.update(0.1)
        self.step_number += 1
        return loss.item()

    @torch.no_grad()
    def update(self, lr: float, decay: float = 1e-5) -> None:
        """Update all parameters with LARS."""
        for weight in self.parameters:
            gradient = weight.grad
            if gradient is None:
                continue
            if self.scale != 1:
                gradient = gradient / self.scale
            if weight.ndim > 1:
                gradient = gradient.add(weight, alpha=decay)
                weight_norm, gradient_norm = torch.norm(weight), torch.norm(gradient)
                if weight_norm != 0 and gradient_norm != 0:
                    gradient = gradient * (0.001 * weight_norm / (gradient_norm + 1e-8))
            buffer = self.momentum_buffers.get(id(weight))
            if buffer is None:
                buffer = self.momentum_buffers[id(weight)] = torch.clone(gradient)
            else:
                buffer.mul_(0.9).add_(gradient)
            weight.add_(buffer, alpha=-lr)


def trunk(network: ResNet) -> nn.Module:
    """Return a torchvision ``network`` without its pooling and classifier."""
    return nn.Sequential(*list(network.children())[:-2])
