"""All descriptions of backbones whose weights can be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.weights.vit_spec import VitSpec

Spec = BackboneSpec | VitSpec | NamedSpec


def spec_from(fields: Mapping[str, Any]) -> Spec:
    """Return the spec with these ``fields``, which its ``as_dict`` gave; ValueError or TypeError if they are of none."""
    if "name" in fields:
        return NamedSpec(**fields)
    return VitSpec(**fields) if "patch" in fields else BackboneSpec(**fields)
