"""Patches of 14 pixels, those of DINOv2, resized to 16 pixels, which ViTDet needs.

Its heads are made for cells of 16 pixels. The kernel is interpolated as in EVA-01/eva/interpolate_patch_14to16.py; ViTDet's own
ViT-H starts from such a file. The positions keep their grid.
"""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F

from pixbench.errors import UserError
from pretrain.models.named_look import look, usual_size
from pretrain.models.named_spec import NamedSpec
from transfer.weights.backbone import Backbone
from transfer.weights.spec import Spec
from transfer.weights.vit_spec import VitSpec

PATCH = 16
"""Side of a patch in pixels for which the heads of ViTDet are made: its pyramid has strides 4 to 32."""
RESIZED = 14
"""Side of patches that are resized to `PATCH`."""
RESIZING = f"patches of {RESIZED} pixels resized to {PATCH}"
"""What a record says of `resized`."""


def resized(backbone: Backbone) -> Backbone:
    """Return ``backbone`` with its patches of 14 pixels resized to 16, or itself if it has other patches."""
    spec, wanted = backbone.spec, _with_larger_patches(backbone.spec)
    if wanted is None:
        return backbone
    key = "net.patch_embed.proj.weight" if isinstance(spec, NamedSpec) else "patch_embed.proj.weight"
    if not backbone.state:  # only the spec is of interest
        return replace(backbone, spec=wanted, resized=True)
    if key not in backbone.state:
        return backbone
    kernel = F.interpolate(backbone.state[key], (PATCH, PATCH), mode="bicubic", align_corners=False)
    return replace(backbone, spec=wanted, state=backbone.state | {key: kernel}, resized=True)


def _with_larger_patches(spec: Spec) -> Spec | None:
    """Return ``spec`` with patches of 16 pixels in place of 14; None if it has others, or if the network has no such option."""
    if isinstance(spec, VitSpec):
        return replace(spec, patch=PATCH, image=spec.image // RESIZED * PATCH) if spec.patch == RESIZED else None
    if not isinstance(spec, NamedSpec) or {*look(spec).stage_strides.values()} != {RESIZED}:
        return None
    height, width = (side // RESIZED * PATCH for side in usual_size(spec))
    sizes = {"patch_size": PATCH, "img_size": height if height == width else [height, width]}
    wanted = replace(spec, options=spec.options | sizes)
    try:
        look(wanted)
    except UserError:
        return None
    return wanted
