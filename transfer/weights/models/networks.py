"""Build the project's own network for a backbone, with which files are compared."""

from __future__ import annotations

from pretrain.models.families import build_backbone
from pretrain.models.feature_network import FeatureNetwork
from transfer.weights.models.vit import ViT
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec


def build_network(spec: Spec) -> FeatureNetwork | ViT:
    """Return a newly initialised network of ``spec``; its state dict has the names of a `Backbone`."""
    return ViT(spec) if isinstance(spec, VitSpec) else build_backbone(spec)
