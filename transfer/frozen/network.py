"""A frozen network: pictures in, the map of its last stage out.

Shapes: B images of H × W pixels; a map has h × w cells of C channels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixbench.errors import UserError, an
from pretrain.models.families import is_plain, map_stride
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.shapes_only import shapes_only
from transfer.frozen.views import Images, need_whole
from transfer.weights.backbone import Backbone
from transfer.weights.models.networks import build_network
from transfer.weights.models.vit import NORM_EPS, ViT
from transfer.weights.spec import Spec
from transfer.weights.tensors import fingerprint
from transfer.weights.vit_spec import VitSpec


class FrozenNetwork(nn.Module):
    """A backbone in eval mode without gradients: images (B, 3, H, W) in RGB, 0 to 255 -> the last map (B, h, w, C).

    The images get the channel order and the normalisation that the backbone was trained with (`Backbone.pixels`). The map of
    a ViT is that of the patches after its last block and, if its file holds it, its last norm (`Backbone.last_norm`).

    Args:
        backbone: a ResNet or a ViT.
        output_stride: side of a cell that replaces that of the backbone; no effect on a ViT, whose cells are its patches.
        pad: whether to add zeros right and below normalised images, up to whole cells.

    Raises:
        UserError: the backbone cannot have this output stride.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, output_stride: int | None = None, pad: bool = False) -> None:
        super().__init__()
        self.spec = spec = at_stride(backbone, output_stride)
        self.stride = cell_side(spec)
        """Side of a cell in pixels."""
        self.pad = pad
        self.network = build_network(spec)
        self.network.load_state_dict(backbone.state)
        self.pixels = backbone.pixels
        """Channel order and normalisation of the inputs."""
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(backbone.pixels, name)).view(3, 1, 1))
        self.last_norm = _layer_norm(backbone)
        """The norm after the last block; None if there is none."""
        about = {"spec": spec.as_dict(), "pixels": str(backbone.pixels)}
        norm = {f"norm.{name}": tensor for name, tensor in backbone.last_norm.items()}
        self.fingerprint = fingerprint(backbone.state | norm, about)
        """Digest of all that decides what the network computes."""
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.mean.device

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map (B, h, w, C) of ``images`` (B, 3, H, W)."""
        images = images.to(self.device, non_blocking=True).to(self.mean.dtype)  # bytes travel, not floats
        images = self.normalised(images)
        if self.pad:
            images = F.pad(images, (0, -images.shape[3] % self.stride, 0, -images.shape[2] % self.stride))
        found = last_map(self.network, images)
        return self.last_norm(found) if self.last_norm else found

    def normalised(self, images: Tensor) -> Tensor:
        """Return the input of the network for ``images`` (B, 3, H, W) in RGB, 0 to 255."""
        return ((images.flip(1) if self.pixels.order == "BGR" else images) - self.mean) / self.std

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return h, w and C of the map of an image of ``height`` × ``width`` pixels. Nothing is computed."""
        if self.pad:
            height, width = (-(-side // self.stride) * self.stride for side in (height, width))
        (cells_high, channels), (cells_wide, _) = cells_along(self.spec, height), cells_along(self.spec, width)
        return cells_high, cells_wide, channels


def at_stride(backbone: Backbone, output_stride: int | None) -> Spec:
    """Return the spec of ``backbone`` with cells of ``output_stride`` pixels; of a ViT, the spec as it is.

    Raises:
        UserError: the backbone has no such map.
    """
    spec = backbone.spec
    if output_stride is None or isinstance(spec, VitSpec) or is_plain(spec):
        return spec
    try:
        spec = replace(spec, output_stride=output_stride)
        map_stride(spec)
    except (UserError, ValueError) as error:
        raise UserError(
            f"{backbone.source} holds {an(spec.title)}, whose cells cannot be of {output_stride} pixels ({error}); choose "
            "another protocol, or set images.output_stride"
        ) from error
    return spec


def cell_side(spec: Spec) -> int:
    """Return the side of a cell of the last map in pixels."""
    return spec.patch if isinstance(spec, VitSpec) else map_stride(spec)


@cache
def cells_along(spec: Spec, side: int) -> tuple[int, int]:
    """Return how many cells a side of ``side`` pixels has, and C. The other side does not matter to any of our networks.

    Pictures of a data set have many sizes, but few lengths of sides, so each length is tried once.

    Raises:
        UserError: the network does not take such images.
    """
    try:
        with torch.device("meta"):
            found = last_map(_without_weights(spec), torch.empty(1, 3, side, side))
    except (AssertionError, RuntimeError, ValueError) as error:  # some networks of timm take one size only
        raise UserError(
            f"{spec.title} does not take images of {side} pixels ({' '.join(str(error).split())[:200]}); set "
            "images.size to what it takes, or evaluate another backbone"
        ) from error
    return found.shape[1], found.shape[3]


@lru_cache(maxsize=32)
def _without_weights(spec: Spec) -> FeatureNetwork | ViT:
    """Return the network on the device "meta", which computes nothing but shapes."""
    with shapes_only():
        return build_network(spec).eval()


def check_inputs(backbone: Backbone, images: Images, whole_cells: bool, name: str) -> None:
    """Check, without computing anything, whether a network of ``backbone`` takes the inputs that ``images`` describes.

    Args:
        backbone: its weights are not read.
        images: of sizes that follow from the pictures, nothing is checked.
        whole_cells: whether each cell must be whole.
        name: data set, for the message.

    Raises:
        UserError: it does not.
    """
    spec = at_stride(backbone, images.output_stride)
    if images.resize in ("squash", "centre"):
        cells_along(spec, images.size)
        if whole_cells:
            need_whole(images.size, images.size, cell_side(spec), name)


def for_images(backbone: Backbone, images: Images) -> FrozenNetwork:
    """Return the network of ``backbone`` for inputs that are made as ``images`` says."""
    if images.std:
        std = images.std if backbone.pixels.order == "RGB" else images.std[::-1]
        backbone = replace(backbone, pixels=replace(backbone.pixels, std=std))
    return FrozenNetwork(backbone, images.output_stride, images.resize == "padded")


def _layer_norm(backbone: Backbone) -> nn.LayerNorm | None:
    if not backbone.last_norm:
        return None
    norm = nn.LayerNorm(len(backbone.last_norm["weight"]), eps=NORM_EPS)
    norm.load_state_dict(backbone.last_norm)
    return norm


def last_map(network: FeatureNetwork | ViT, images: Tensor) -> Tensor:
    """Return the map (B, h, w, C) of the last stage for normalised ``images`` (B, 3, H, W)."""
    if isinstance(network, FeatureNetwork):
        return network(images).permute(0, 2, 3, 1)
    *_, last = network.forward_stages(images).values()
    return last
