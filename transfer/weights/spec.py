"""All descriptions of backbones whose weights can be read."""

from __future__ import annotations

from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.weights.vit_spec import VitSpec

Spec = BackboneSpec | VitSpec | NamedSpec
