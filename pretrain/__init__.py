"""Self-supervised pre-training of dense backbones: PixPro and the baselines it is compared with.

The public names are imported at their first use, so `import pretrain` alone does not import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.config import RunConfig, from_dict, parse
    from pretrain.data.views import Views
    from pretrain.engine import train
    from pretrain.losses.geometry import cell_distances, positive_mask
    from pretrain.losses.instance import cosine_regression, info_nce, nt_xent, sup_con
    from pretrain.losses.pixel import pixel_consistency, pixel_contrast
    from pretrain.methods import METHODS
    from pretrain.methods.base import Method, MomentumMethod, feature_std
    from pretrain.models.backbone_spec import BackboneSpec
    from pretrain.models.momentum_encoder import MomentumEncoder
    from pretrain.models.ppm import PixelPropagation
    from pretrain.models.resnet import ResNet, build_resnet
    from pretrain.pixel_learner import PixelLearner

_MODULES = {
    "config": ("RunConfig", "from_dict", "parse"),
    "data.views": ("Views",),
    "engine": ("train",),
    "losses.geometry": ("cell_distances", "positive_mask"),
    "losses.instance": ("cosine_regression", "info_nce", "nt_xent", "sup_con"),
    "losses.pixel": ("pixel_consistency", "pixel_contrast"),
    "methods": ("METHODS",),
    "methods.base": ("Method", "MomentumMethod", "feature_std"),
    "models.backbone_spec": ("BackboneSpec",),
    "models.momentum_encoder": ("MomentumEncoder",),
    "models.ppm": ("PixelPropagation",),
    "models.resnet": ("ResNet", "build_resnet"),
    "pixel_learner": ("PixelLearner",),
}
__all__ = [
    "METHODS",
    "BackboneSpec",
    "Method",
    "MomentumEncoder",
    "MomentumMethod",
    "PixelLearner",
    "PixelPropagation",
    "ResNet",
    "RunConfig",
    "Views",
    "build_resnet",
    "cell_distances",
    "cosine_regression",
    "feature_std",
    "from_dict",
    "info_nce",
    "nt_xent",
    "parse",
    "pixel_consistency",
    "pixel_contrast",
    "positive_mask",
    "sup_con",
    "train",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
