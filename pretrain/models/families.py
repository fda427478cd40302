"""The families of backbones: which description and which network belong to a name.

A family is one file with its description and one with its network; nothing else asks which family a backbone has.
"""

from __future__ import annotations

from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.named_look import look
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_sizes import check_size
from pretrain.models.named_spec import NamedSpec
from pretrain.models.resnet import build_resnet

Spec = BackboneSpec | NamedSpec
"""Description of a backbone that can be pre-trained."""


def build_backbone(spec: Spec, zero_init_residual: bool = True) -> FeatureNetwork:
    """Return a newly initialised network for ``spec``; ``zero_init_residual`` is for ResNets, see `BackboneSpec`."""
    return build_resnet(spec, zero_init_residual) if isinstance(spec, BackboneSpec) else NamedNetwork(spec)


def stage_channels(spec: Spec) -> dict[str, int]:
    """Return the numbers of channels of the maps of all stages, "layer1" to "layer4" for C2 to C5."""
    if isinstance(spec, BackboneSpec):
        return spec.stage_channels
    return look(spec).stage_channels


def map_stride(spec: Spec) -> int:
    """Return the side in image pixels of a cell of the map that methods take."""
    if isinstance(spec, BackboneSpec):
        return spec.output_stride
    seen = look(spec)
    return seen.stages[seen.taken].stride


def is_plain(spec: Spec) -> bool:
    """Whether all maps have one stride, as those of a ViT."""
    return isinstance(spec, NamedSpec) and len({*look(spec).stage_strides.values()}) == 1


def check_images(spec: Spec, side: int) -> None:
    """Raise UserError if the network does not take images of ``side`` × ``side`` pixels."""
    if isinstance(spec, NamedSpec):
        check_size(spec, side, side)
