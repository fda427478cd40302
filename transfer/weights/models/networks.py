"""Build the project's own network for a backbone, with which files are compared."""

from __future__ import annotations

from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.resnet import ResNet, build_resnet
from transfer.weights.models.vit import ViT
from transfer.weights.vit_spec import VitSpec


def build_network(spec: BackboneSpec | VitSpec) -> ResNet | ViT:
    """Return a newly initialised network of ``spec``; its state dict has the names of a `Backbone`."""
    return build_resnet(spec) if isinstance(spec, BackboneSpec) else ViT(spec)
