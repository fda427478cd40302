"""A backbone and batches small enough for many tests."""

from __future__ import annotations

import torch

from pretrain.data.views import Views
from pretrain.methods import METHODS
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_spec import NamedSpec
from pretrain.models.resnet import ResNet

VIT = NamedSpec(
    "timm:vit_tiny_patch16_224", {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
)
ON_RESNETS = {name: method for name, method in METHODS.items() if not method.needs_tokens}
"""The methods that take a ResNet."""


def backbone(seed: int = 0) -> ResNet:
    """One block a stage, 64 channels in C5; residual branches switched on, so that every parameter matters."""
    torch.manual_seed(seed)
    return ResNet((1, 1, 1, 1), width=1 / 32, zero_init_residual=False)


def backbone_for(method: str, seed: int = 0) -> FeatureNetwork:
    """A ViT for a method that needs one, otherwise `backbone`."""
    torch.manual_seed(seed)
    return NamedNetwork(VIT) if METHODS[method].needs_tokens else backbone(seed)


def views(count: int = 4, size: int = 64, seed: int = 0, dtype: torch.dtype = torch.float32) -> Views:
    generator = torch.Generator().manual_seed(seed)
    view1, view2 = torch.randn(2, count, 3, size, size, generator=generator, dtype=dtype)
    corner, extent = 0.3 * torch.rand(2, 2, count, 2, generator=generator, dtype=dtype)
    boxes = torch.cat([corner, corner + extent + 0.3], dim=2)
    index = torch.arange(count)
    return Views(view1, view2, boxes[0], boxes[1], index, index)
